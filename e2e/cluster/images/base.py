"""The base image where no registry is asked: Debian with its Python, which stands in for python:3.11-slim-bookworm."""

import hashlib
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from e2e.cluster.command import run
from e2e.cluster.debian import mmdebstrap
from e2e.cluster.progress import Progress

_SUITE: Final = "bookworm"
_PACKAGES: Final = "ca-certificates,python3,python3-venv"
# What a slim image leaves out; licences stay, as their terms ask for.
_OPTIONS: Final = (
    "--variant=minbase",
    f"--include={_PACKAGES}",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/info/*",
)


def reference() -> str:
    """Return the name of the base image, which says how it was made."""
    recipe = hashlib.sha256(repr((_SUITE, _OPTIONS)).encode()).hexdigest()[:12]
    return f"localhost/moorage/python:3.11-slim-{_SUITE}-{recipe}"


def ensure(progress: Progress) -> str:
    """Make the base image unless buildah has it already; returns its name.

    Raises:
        ClusterError: mmdebstrap or buildah fails.
    """
    name = reference()
    if has_image(name):
        return name
    with (
        progress.step("make the base image from Debian packages (once, about a minute)") as step,
        tempfile.TemporaryDirectory(prefix="moorage-base-") as folder,
    ):
        archive = Path(folder) / "base.tar"
        mmdebstrap(*_OPTIONS, _SUITE, target=archive)
        container = run(["buildah", "from", "scratch"]).strip()
        run(["buildah", "add", "--quiet", container, archive, "/"])
        run(["buildah", "commit", "--quiet", "--rm", container, name])
        step.result(f"{archive.stat().st_size / 1e6:.0f} MB")
    return name


def has_image(name: str) -> bool:
    """Whether buildah's storage holds an image of that name."""
    argv = ["buildah", "inspect", "--type=image", "--format={{.FromImageID}}", name]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0
