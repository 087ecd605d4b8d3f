"""The operator with a profiler in each of its threads: `python -m bench.operator.profiled REPORT FLAGS…`.

The clock of each is the thread's own CPU time, so that waiting costs nothing, whoever else keeps the machine busy.
Profiling makes small functions look dearer than they are: what it says is where to look, not how long it takes.
"""

import cProfile
import gc
import io
import pstats
import sys
import threading
import time
from pathlib import Path
from typing import Final

from bench.operator.shipped import main

_SHOWN: Final = 45


class Profiles:
    """A profile for each thread that was begun in it."""

    def __init__(self) -> None:
        """None yet."""
        self._profiles: dict[str, cProfile.Profile] = {}

    def begin(self, *_: object) -> None:
        """Profile the calling thread from now on."""
        profile = self._profiles[threading.current_thread().name] = cProfile.Profile(time.thread_time)
        profile.enable()

    def report(self) -> str:
        """The dearest functions of each thread, by themselves and with what they call."""
        text = io.StringIO()
        for thread, profile in self._profiles.items():
            stats = pstats.Stats(profile, stream=text)
            for order in ("tottime", "cumtime"):
                text.write(f"\n{thread}, ")
                stats.sort_stats(order).print_stats(_SHOWN)
        return text.getvalue()


class Sweeps:
    """How long the garbage collector took, in whichever thread it ran: no profile shows it."""

    def __init__(self) -> None:
        """None yet."""
        self._seconds = [0.0, 0.0, 0.0]
        self._began = 0.0
        gc.callbacks.append(self._told)

    def _told(self, phase: str, told: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.thread_time()
        else:
            self._seconds[told["generation"]] += time.thread_time() - self._began

    def report(self) -> str:
        """Seconds by generation, and how often each was swept."""
        swept = zip(self._seconds, gc.get_stats(), strict=True)
        told = ", ".join(f"{spent:.2f} s in {one['collections']}" for spent, one in swept)
        return f"\ngarbage collector, by generation: {told}\n"


if __name__ == "__main__":
    report = Path(sys.argv.pop(1))
    profiles, sweeps = Profiles(), Sweeps()
    threading.setprofile(profiles.begin)
    profiles.begin()
    try:
        main()
    finally:
        with report.open("a") as file:  # a benchmark starts the operator more than once
            file.write(profiles.report() + sweeps.report())
