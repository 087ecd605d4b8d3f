"""kind itself: its command, and the files from which it makes node images. Both come from kind's Go module."""

import json
import tempfile
from pathlib import Path
from typing import Final

from e2e.cluster.command import lock, run, which
from e2e.cluster.paths import cache_dir
from e2e.cluster.progress import Progress

VERSION: Final = "v0.33.0"
_MODULE: Final = f"sigs.k8s.io/kind@{VERSION}"


def obstacle() -> str | None:
    """Say what is missing to have kind's command, if anything is."""
    if which("kind") or which("go") or _built().exists():
        return None
    return "kind (https://kind.sigs.k8s.io) is needed on PATH, or Go to build it"


def installed_or_built(progress: Progress) -> Path:
    """Return the command that the person installed; where there is none, the one that is built here."""
    found = which("kind")
    return Path(found) if found else built(progress)


def built(progress: Progress) -> Path:
    """Return the command in the version of this module, building it when it is not cached (20 s).

    Raises:
        ClusterError: the build fails.
    """
    program = _built()
    with lock(program.parent / ".lock", progress, "kind"):
        if not program.exists():
            with (
                progress.step(f"build kind {VERSION} (once)"),
                tempfile.TemporaryDirectory(dir=program.parent) as unfinished,
            ):
                run(["go", "install", "-trimpath", _MODULE], env={"GOBIN": unfinished, "CGO_ENABLED": "0"})
                Path(unfinished, "kind").rename(program)
    return program


def node_files() -> Path:
    """Return the folder of files that kind lays over a Debian to make a node of it.

    Raises:
        ClusterError: the module cannot be had.
    """
    module = json.loads(run(["go", "mod", "download", "-json", _MODULE]))
    return Path(module["Dir"]) / "images" / "base" / "files"


def _built() -> Path:
    return cache_dir() / f"kind-{VERSION}" / "kind"
