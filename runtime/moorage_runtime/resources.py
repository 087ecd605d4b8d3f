"""What this container may use: processors and memory, from the control groups, never from the node it happens to be on.

A pod limited to 2 of 64 cores that starts 64 compute threads is throttled by the kernel in the middle of every step;
one that sizes its cache by the node's memory is killed. Both control group versions tell the limits; a process is bound
by its group and by all groups above it.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CGROUP_ROOT = Path("/sys/fs/cgroup")
PROC = Path("/proc")


def compute_threads(root: Path = CGROUP_ROOT, proc: Path = PROC) -> int:
    """Threads that compute at the same time: the whole processors of the quota, within the affinity; at least 1."""
    affinity = len(os.sched_getaffinity(0))
    quota = cpu_quota(root, proc)
    return affinity if quota is None else max(1, min(affinity, math.floor(quota)))


def cpu_quota(root: Path = CGROUP_ROOT, proc: Path = PROC) -> float | None:
    """Processors that the control groups allow, for example 1.5; None without a quota."""
    quotas = []
    for folder in _folders("cpu", root, proc):
        if text := _read(folder / "cpu.max"):  # version 2: "150000 100000" or "max 100000"
            quota, period = text.split()
        else:  # version 1: two files, -1 is no quota
            quota, period = _read(folder / "cpu.cfs_quota_us") or "-1", _read(folder / "cpu.cfs_period_us") or "1"
        if quota not in ("max", "-1"):
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def memory_limit(root: Path = CGROUP_ROOT, proc: Path = PROC) -> int:
    """Bytes that all processes of this container may use: the limit, else what the machine has available now."""
    names = ("memory.max", "memory.limit_in_bytes")
    texts = [_read(folder / name) for folder in _folders("memory", root, proc) for name in names]
    limits = [int(text) for text in texts if text and text != "max"]
    # Version 1 spells "no limit" as a number larger than any machine.
    bounding = [limit for limit in limits if limit < _meminfo("MemTotal", proc)]
    return min(bounding, default=_meminfo("MemAvailable", proc))


def resident_bytes(proc: Path = PROC) -> int:
    """Bytes of memory that this process occupies."""
    return int((proc / "self" / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def shared_bytes(proc: Path = PROC) -> int:
    """Of those, bytes of memory that other processes may have in common with it, files aside."""
    for line in (proc / "self" / "status").read_text().splitlines():
        if line.startswith("RssShmem:"):
            return int(line.split()[1]) * 1024
    return 0  # kernels without the line tell none of it


def _folders(controller: str, root: Path, proc: Path) -> Iterator[Path]:
    """The control groups that bind this process for a controller: its own and all above it, in both versions."""
    for line in (_read(proc / "self" / "cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mounts = [root, root / "unified"]  # version 2; beside version 1 it is mounted as "unified"
        elif controller in controllers.split(","):
            mounts = [root / controller, root / controllers]
        else:
            continue
        own = PurePosixPath(path)
        for group in (own, *own.parents):
            yield from (mount / group.relative_to("/") for mount in mounts)


def _read(path: Path) -> str | None:
    return path.read_text().strip() if path.is_file() else None


def _meminfo(name: str, proc: Path) -> int:
    for line in (proc / "meminfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise LookupError(f"{proc / 'meminfo'} has no {name}")
