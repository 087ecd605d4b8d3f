"""Notices an engine that has work and makes no step: first the server is not ready, then it gives up.

The silence is counted in looks of this process, not by the clock alone: a process that was itself stopped or starved
(SIGSTOP, a frozen control group) saw nothing of what the engine did meanwhile and must not blame it.
"""

import time
from collections.abc import Callable
from typing import Literal

Verdict = Literal["ok", "stuck", "lost"]

LOOK_SECONDS = 1.0
"""How often `look` is to be called."""
_LEAST_SECONDS = 60.0
_SLOWEST_STEPS = 5.0
"""Prompts make steps of very different lengths; a machine that needs 20 s for one may need 100 s for another."""


class Watchdog:
    """Stuck: work exists and no step ended for max(60 s, 5 x the slowest step seen). Lost: twice as long."""

    def __init__(
        self,
        *,
        least_seconds: float = _LEAST_SECONDS,
        lost_factor: float = 2.0,
        look_seconds: float = LOOK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.look_seconds = look_seconds
        self._least = least_seconds
        self._lost_factor = lost_factor
        self._clock = clock
        self._slowest = 0.0
        self._silence = 0.0
        self._looked = clock()

    @property
    def patience(self) -> float:
        """Seconds without a step after which the engine counts as stuck."""
        return max(self._least, _SLOWEST_STEPS * self._slowest)

    @property
    def silence(self) -> float:
        """Seconds for which work has waited for a step to end."""
        return self._silence

    def stepped(self, seconds: float) -> None:
        """A step has ended, and took this long."""
        self._slowest = max(self._slowest, seconds)
        self._silence = 0.0

    def look(self, *, has_work: bool) -> Verdict:
        """Judge the engine; to be called every `look_seconds`."""
        now = self._clock()
        passed, self._looked = now - self._looked, now
        self._silence = self._silence + min(passed, 2 * self.look_seconds) if has_work else 0.0
        if self._silence < self.patience:
            return "ok"
        return "stuck" if self._silence < self._lost_factor * self.patience else "lost"
