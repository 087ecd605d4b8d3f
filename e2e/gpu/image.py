"""The image of the fake device plugin: a Go program, and the library that it hands out, compiled here once."""

import hashlib
import tempfile
from pathlib import Path
from typing import Final

from e2e.cluster.command import run, which
from e2e.cluster.images import program
from e2e.cluster.images.layout import Layout
from e2e.cluster.progress import Progress
from e2e.cluster.provider import ClusterError, Image

_HERE: Final = Path(__file__).parent
_SOURCES: Final = ("nvml.c", "plugin/go.mod", "plugin/go.sum", "plugin/main.go")
_LIBRARY: Final = "libnvidia-ml.so.1"
_GO: Final = ("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w")
_CC: Final = ("cc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-Wl,-soname,{_LIBRARY}")
_TAG_LENGTH: Final = 12


def ensure_image(progress: Progress) -> Image:
    """Return the image, building it when its sources changed.

    Raises:
        ClusterError: Go or a C compiler is missing, or a build fails.
    """
    return program.ensure(f"fake-gpu:{_tag()}", "the fake GPUs, about a minute", _build, progress)


def _tag() -> str:
    digest = hashlib.sha256(repr((_GO, _CC)).encode())
    for name in _SOURCES:
        digest.update((_HERE / name).read_bytes())
    return digest.hexdigest()[:_TAG_LENGTH]


def build_library(folder: Path) -> Path:
    """Compile the fake NVML into a folder; returns it.

    Raises:
        ClusterError: there is no C compiler, or it fails.
    """
    _require(_CC[0])
    library = folder / _LIBRARY
    run([*_CC, "-o", library, _HERE / "nvml.c"])
    return library


def _build(layout: Layout, name: str) -> None:
    _require(_GO[0])
    with tempfile.TemporaryDirectory() as folder:
        plugin = Path(folder) / "fakegpu"
        run([*_GO, "-o", plugin, "."], cwd=_HERE / "plugin", env={"CGO_ENABLED": "0"})
        layout.add_program(name, plugin, build_library(Path(folder)))


def _require(program: str) -> None:
    if not which(program):
        raise ClusterError(f"The fake GPUs are built with Go and a C compiler; there is no `{program}` here")
