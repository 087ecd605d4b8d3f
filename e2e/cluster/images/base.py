"""The base images where no registry is asked: Debian with its Python, with and without a compiler.

They stand in for python:3.11-slim-bookworm, which images are made of, and python:3.11-bookworm, where code is compiled.
"""

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
_COMPILER: Final = "g++"
# What a slim image leaves out; licences stay, as their terms ask for.
_OPTIONS: Final = (
    "--variant=minbase",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/info/*",
)


def reference(*, compiler: bool = False) -> str:
    """Return the name of the base image, which says how it was made."""
    recipe = hashlib.sha256(repr((_SUITE, _options(compiler=compiler))).encode()).hexdigest()[:12]
    return f"localhost/moorage/python:3.11-{'' if compiler else 'slim-'}{_SUITE}-{recipe}"


def ensure(progress: Progress, *, compiler: bool = False) -> str:
    """Make the base image unless buildah has it already; returns its name.

    Raises:
        ClusterError: mmdebstrap or buildah fails.
    """
    name = reference(compiler=compiler)
    if has_image(name):
        return name
    what = "the base image with a compiler" if compiler else "the base image"
    with (
        progress.step(f"make {what} from Debian packages (once, about a minute)") as step,
        tempfile.TemporaryDirectory(prefix="moorage-base-") as folder,
    ):
        archive = Path(folder) / "base.tar"
        mmdebstrap(*_options(compiler=compiler), _SUITE, target=archive)
        container = run(["buildah", "from", "scratch"]).strip()
        run(["buildah", "add", "--quiet", container, archive, "/"])
        run(["buildah", "commit", "--quiet", "--rm", container, name])
        step.result(f"{archive.stat().st_size / 1e6:.0f} MB")
    return name


def _options(*, compiler: bool) -> tuple[str, ...]:
    return (*_OPTIONS, f"--include={_PACKAGES}{',' + _COMPILER if compiler else ''}")


def has_image(name: str) -> bool:
    """Whether buildah's storage holds an image of that name."""
    argv = ["buildah", "inspect", "--type=image", "--format={{.FromImageID}}", name]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0
