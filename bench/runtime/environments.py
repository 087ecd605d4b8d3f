"""A virtual environment for each peer, below `${XDG_CACHE_HOME:-~/.cache}/moorage/bench`, one per set of versions.

A set-up that was interrupted leaves no environment behind and is begun anew: what is made is renamed when complete.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import Distribution, distribution, distributions, version
from pathlib import Path

from bench.runtime.answers import ServerError
from bench.runtime.say import say

TORCH = version("torch")
_LOG_CHARACTERS = 2000
_NONE: Mapping[str, str] = {}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What an environment holds."""

    package: str
    version: str
    extra: str = ""
    """An optional part of the package."""
    others: Sequence[str] = ()
    """Requirements besides."""
    torch: bool = False
    """Give it the very build of torch that we compute with, which the index may not have."""
    without: frozenset[str] = frozenset()
    """Dependencies that are not installed."""
    build: Mapping[str, str] = field(default_factory=dict)
    """The package is compiled on this machine, with these variables set."""

    @property
    def folder(self) -> str:
        """Names the versions."""
        return f"{self.package}-{self.version}" + (f"-torch-{TORCH}" if self.torch else "")


def cache() -> Path:
    """The folder of everything that is built once."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "moorage" / "bench"


def prepare(recipe: Recipe) -> Path:
    """The environment's folder; made if it is not there yet.

    Raises:
        ServerError: pip failed; with the end of what it said.
    """
    ready = cache() / recipe.folder
    if ready.exists():
        return ready
    took = "compiled here, some 10 minutes" if recipe.build else "some minutes"
    say(f"setting up {recipe.folder} in {ready.parent}; once, {took}")
    making = ready.with_name(ready.name + ".making")
    shutil.rmtree(making, ignore_errors=True)
    making.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", making])
    if recipe.torch:
        _share_torch(making)
    _install(making, recipe)
    # The paths in its scripts are those of the old name: its programs are run by `python -m`.
    making.rename(ready)
    return ready


def python(environment: Path) -> str:
    """Its interpreter."""
    return str(environment / "bin" / "python")


def site_packages(environment: Path) -> Path:
    """Where its packages are."""
    return next(environment.glob("lib/python*/site-packages"))


def installed(environment: Path, package: str) -> Distribution:
    """A package in it."""
    return next(iter(distributions(name=package, path=[str(site_packages(environment))])))


def _install(environment: Path, recipe: Recipe) -> None:
    torch = [f"torch=={TORCH}"] if recipe.torch else []
    wanted = [f"{recipe.package}{recipe.extra}=={recipe.version}", *recipe.others, *torch]
    if recipe.build:
        # What pip has in its cache may have been compiled with other flags.
        _pip(environment, ["--no-cache-dir", *wanted], recipe.build)
        return
    if not recipe.without:
        _pip(environment, wanted)
        return
    _pip(environment, ["--no-deps", *wanted])
    requires = installed(environment, recipe.package).requires or []
    _pip(environment, [*torch, *recipe.others, *_needed(requires, recipe.without)])


def _needed(requires: Sequence[str], without: frozenset[str]) -> list[str]:
    """The dependencies that are not optional, but for some; pip evaluates their other markers itself."""
    needed = [line for line in requires if "extra ==" not in line]
    return [line for line in needed if re.split(r"[^\w.-]", line, maxsplit=1)[0] not in without]


def _share_torch(environment: Path) -> None:
    torch = distribution("torch")
    site = site_packages(environment)
    for file in torch.files or ():
        if ".." not in file.parts and "__pycache__" not in file.parts:
            target = site / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(str(torch.locate_file(file)), target)


def _pip(environment: Path, arguments: Sequence[str], variables: Mapping[str, str] = _NONE) -> None:
    pip = [python(environment), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, *arguments], variables)


def _run(command: Sequence[str | Path], variables: Mapping[str, str] = _NONE) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **variables})
    if done.returncode != 0:
        said = (done.stdout + done.stderr)[-_LOG_CHARACTERS:]
        raise ServerError(f"{' '.join(map(str, command))} ended with code {done.returncode}:\n{said}")
