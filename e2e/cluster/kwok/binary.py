"""KWOK itself, built once from its Go module (its libraries differ from those of Kubernetes' binary), then cached."""

import re
import tempfile
from pathlib import Path
from typing import Final

from e2e.cluster.command import lock, run, which
from e2e.cluster.paths import cache_dir
from e2e.cluster.progress import Progress
from e2e.cluster.provider import ClusterError

_SOURCE: Final = Path(__file__).parent
_PROGRAM: Final = "sigs.k8s.io/kwok/cmd/kwok"


def version() -> str:
    """Return the version that go.mod pins, as `v0.7.0`."""
    found = re.search(r"sigs\.k8s\.io/kwok (v\S+)", (_SOURCE / "go.mod").read_text())
    if found is None:
        raise ClusterError(f"{_SOURCE / 'go.mod'} does not name sigs.k8s.io/kwok")
    return found[1]


def ensure_kwok(progress: Progress) -> Path:
    """Return the program, building it when this version is not cached.

    Raises:
        ClusterError: Go is missing, or the build fails.
    """
    program = cache_dir() / f"kwok-{version()}" / "kwok"
    if not program.exists() and not which("go"):
        raise ClusterError("Go 1.24 or newer is needed to build KWOK (https://go.dev/doc/install)")
    with lock(program.parent / ".lock", progress, "KWOK"):
        if not program.exists():
            _build(program, progress)
    return program


def _build(program: Path, progress: Progress) -> None:
    with (
        progress.step(f"build KWOK {version()} (once; 2 to 4 minutes on two cores)"),
        tempfile.TemporaryDirectory(dir=program.parent) as unfinished,
    ):
        built = Path(unfinished) / program.name
        flags = ["-trimpath", "-buildvcs=false", "-ldflags=-s -w"]
        run(["go", "build", *flags, "-o", built, _PROGRAM], cwd=_SOURCE, env={"CGO_ENABLED": "0"})
        built.rename(program)
