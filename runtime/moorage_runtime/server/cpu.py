"""How much of its processors this container uses: the server and all processes that it has started."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from moorage_runtime.resources import PROC, cpu_quota

_SECONDS: Final = 1.0
"""A measurement is at least so long."""
_PARENT: Final = 1
_TIMES: Final = slice(11, 15)
"""In user mode and in the kernel; and the same of children that have ended, so that none is lost."""


class CpuMeter:
    """Measures from one asking to the next.

    Args:
        processors: How many there are to use; not whole where the control groups say so.
        spent: Gives the seconds that all processes together have computed.
        clock: Gives the seconds that have passed.
    """

    def __init__(
        self,
        processors: float | None = None,
        spent: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._processors = processors or cpu_quota() or len(os.sched_getaffinity(0))
        self._spent, self._clock = spent or spent_seconds, clock
        self._begun, self._before = clock(), self._spent()
        self._latest: float | None = None

    def utilization(self) -> float | None:
        """The share of them that was in use of late, 0 to 1; None while nothing has been measured."""
        seconds = self._clock() - self._begun
        if seconds >= _SECONDS:
            spent = self._spent()
            self._latest = min(1.0, max(0.0, (spent - self._before) / seconds / self._processors))
            self._begun, self._before = self._begun + seconds, spent
        return self._latest


def spent_seconds(proc: Path = PROC, pid: int | None = None) -> float:
    """What a process and its descendants have computed; this process' where none is named."""
    children: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for folder in proc.iterdir():
        if folder.name.isdecimal() and (fields := _fields(folder)):
            found = int(folder.name)
            children.setdefault(int(fields[_PARENT]), []).append(found)
            ticks[found] = sum(map(int, fields[_TIMES]))
    total, left = 0, [os.getpid() if pid is None else pid]
    while left:
        one = left.pop()
        total += ticks.get(one, 0)
        left += children.get(one, [])
    return total / os.sysconf("SC_CLK_TCK")


def _fields(folder: Path) -> list[str]:
    """Of `stat`, what follows the name, in which there may be anything; nothing of a process that has just ended."""
    try:
        text = (folder / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()
