"""What a process and its descendants take of the machine, from /proc."""

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
# proc(5), /proc/pid/stat: utime, stime, cutime and cstime, counted from the field behind the command's name.
_CPU_FIELDS = slice(11, 15)


@dataclass(frozen=True)
class Usage:
    """Of all of them together."""

    rss_mib: float
    """Resident memory; what two of them share counts twice."""
    cpu_s: float


def tree(pid: int) -> list[int]:
    """A process and its descendants; nothing where it is gone."""
    try:
        children = [
            int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in _read(task / "children").split()
        ]
    except OSError:
        return []
    return [pid, *(found for child in children for found in tree(child))]


def usage(pid: int) -> Usage:
    """Now."""
    pids = tree(pid)
    return Usage(sum(_rss(pid) for pid in pids) / 2**20, sum(_cpu(pid) for pid in pids))


def _rss(pid: int) -> int:
    pages = _read(Path(f"/proc/{pid}/statm")).split()
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") if pages else 0


def _cpu(pid: int) -> float:
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return sum(map(int, fields[_CPU_FIELDS])) / _TICKS


def _read(path: Path) -> str:
    """Empty where the process has ended meanwhile."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
