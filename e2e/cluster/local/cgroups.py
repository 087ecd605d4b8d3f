"""The control group of one cluster, below which its pods live, on machines with either version of control groups."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from e2e.cluster.processes import Process, identify
from e2e.cluster.provider import ClusterError

_ROOT: Final = Path("/sys/fs/cgroup")
_UNIFIED: Final = ("cpu", "cpuset", "io", "memory", "pids")
_REMOVE_DEADLINE: Final = 10.0


@dataclass(frozen=True)
class ControlGroup:
    """A group of one name at the top of every hierarchy."""

    name: str

    def create(self) -> None:
        """Make it. In version 1 a cpuset is unusable until its processors and memory nodes are set."""
        for hierarchy in _hierarchies():
            (hierarchy / self.name).mkdir(exist_ok=True)
        if _is_unified(_ROOT):
            _enable_controllers(_ROOT)
            _enable_controllers(_ROOT / self.name)
        elif (cpuset := _ROOT / "cpuset").exists():
            for setting in ("cpuset.cpus", "cpuset.mems"):
                (cpuset / self.name / setting).write_text((cpuset / setting).read_text())

    def exists(self) -> bool:
        """Whether it is there in any hierarchy."""
        return any(self._folders())

    def processes(self) -> list[Process]:
        """Return the processes of the group and of all groups below it."""
        pids = {int(pid) for folder in self._folders() for pid in _members(folder)}
        return [process for pid in pids if (process := identify(pid)) is not None]

    def remove(self) -> None:
        """Remove the empty groups, the deepest first.

        Raises:
            ClusterError: a group stays busy.
        """
        until = time.monotonic() + _REMOVE_DEADLINE
        while left := list(self._folders()):
            for folder in left:
                _remove_tree(folder)
            if time.monotonic() > until:
                raise ClusterError(f"The control group {left[0]} cannot be removed: something still runs in it")

    def _folders(self) -> Iterator[Path]:
        return (folder for hierarchy in _hierarchies() if (folder := hierarchy / self.name).exists())


def _is_unified(folder: Path) -> bool:
    return (folder / "cgroup.controllers").exists()


def _hierarchies() -> list[Path]:
    """Return the top of each hierarchy: one in version 2, one per controller in version 1."""
    if _is_unified(_ROOT):
        return [_ROOT]
    return sorted({folder.resolve() for folder in _ROOT.iterdir() if (folder / "cgroup.procs").exists()})


def _enable_controllers(folder: Path) -> None:
    available = (folder / "cgroup.controllers").read_text().split()
    wanted = " ".join(f"+{controller}" for controller in _UNIFIED if controller in available)
    (folder / "cgroup.subtree_control").write_text(wanted)


def _members(folder: Path) -> Iterator[str]:
    for path in _tree(folder):
        try:
            yield from (path / "cgroup.procs").read_text().split()
        except OSError:  # the group went away, or holds threads only
            continue


def _tree(folder: Path) -> Iterator[Path]:
    """The group and all below it, each before those below; one that goes away meanwhile is passed over."""
    return (Path(path) for path, _, _ in os.walk(folder))


def _remove_tree(folder: Path) -> None:
    for path in reversed(list(_tree(folder))):
        try:
            path.rmdir()
        except OSError:  # the kernel is not done with its processes yet: the caller comes back
            return
