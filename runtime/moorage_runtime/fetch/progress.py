"""Says every few seconds how far a fetch has come, by looking at what lies on disk: the same for every source."""

import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

_MIB = 2**20


class Progress:
    """A context in which a line on standard error appears every `interval` seconds."""

    def __init__(self, folder: Path, interval: float = 3.0, out: TextIO = sys.stderr) -> None:
        self._folder = folder
        self._interval = interval
        self._out = out
        self._total = 0
        self._begun = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def expect(self, size: int) -> None:
        """How many bytes will come."""
        self._total = size

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End; no line appears afterwards."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self._out.write(describe(size_of(self._folder), self._total, time.monotonic() - self._begun) + "\n")
            self._out.flush()


def describe(done: int, total: int, seconds: float) -> str:
    """How far, how fast, how long still."""
    rate = done / seconds
    if not total:
        return f"fetch: {done / _MIB:.0f} MiB, {rate / _MIB:.1f} MiB/s"
    left = f", {max(total - done, 0) / rate:.0f} s left" if rate else ""
    return f"fetch: {done / _MIB:.0f} of {total / _MIB:.0f} MiB ({done / total:.0%}), {rate / _MIB:.1f} MiB/s{left}"


def size_of(folder: Path) -> int:
    """Bytes of all files below `folder`; files come and go meanwhile."""
    size = 0
    for path in folder.rglob("*"):
        try:
            size += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return size
