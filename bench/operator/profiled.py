"""The operator with a sampler beside it: `python -m bench.operator.profiled REPORT FLAGS…`.

Every few milliseconds it looks where each thread is, and charges that place with the CPU time which the kernel has
counted for the thread since the last look. So a thread that waits costs nothing, and the sum is what the process took.
"""

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Final

from bench.operator.shipped import main

_EVERY: Final = 0.004
_SHOWN: Final = 45

_Place = tuple[str, str]


class Sampler(threading.Thread):
    """Looks until it is stopped."""

    def __init__(self) -> None:
        """Have seen nothing."""
        super().__init__(name="sampler", daemon=True)
        self._over = threading.Event()
        self._spent: dict[int, float] = {}
        self.own: Counter[_Place] = Counter()
        self.within: Counter[_Place] = Counter()
        """With what it calls."""

    def run(self) -> None:
        """Look, again and again."""
        while not self._over.wait(_EVERY):
            frames = sys._current_frames()  # noqa: SLF001 - documented, in spite of its name
            for thread in threading.enumerate():
                if thread is not self and thread.ident in frames:
                    self._charge(thread.name, thread.ident, frames[thread.ident])

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self.join()

    def _charge(self, name: str, ident: int, frame: FrameType) -> None:
        now = time.clock_gettime(time.pthread_getcpuclockid(ident))
        seconds = now - self._spent.get(ident, now)
        self._spent[ident] = now
        if not seconds:
            return
        places = [(name, place) for place in _places(frame)]
        self.own[places[0]] += seconds  # type: ignore[assignment]  # a Counter adds up whatever can be added
        for place in set(places):
            self.within[place] += seconds  # type: ignore[assignment]

    def report(self) -> str:
        """The most expensive functions, by themselves and with what they call."""
        return "\n".join(
            f"\n{title}, CPU-seconds of {sum(self.own.values()):.1f}\n"
            + "\n".join(f"{seconds:7.2f}  {thread:<12} {place}" for (thread, place), seconds in counted)
            for title, counted in (
                ("own time", self.own.most_common(_SHOWN)),
                ("with what is called", self.within.most_common(_SHOWN)),
            )
        )


def _places(frame: FrameType | None) -> Iterator[str]:
    """The functions on a stack, the innermost first."""
    while frame is not None:
        code = frame.f_code
        yield f"{'/'.join(Path(code.co_filename).parts[-3:])}:{code.co_qualname}"
        frame = frame.f_back


if __name__ == "__main__":
    report = Path(sys.argv.pop(1))
    sampler = Sampler()
    sampler.start()
    try:
        main()
    finally:
        sampler.stop()
        with report.open("a") as file:  # a benchmark starts the operator more than once
            file.write(sampler.report() + "\n")
