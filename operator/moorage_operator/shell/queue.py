"""The work queue: keys to look at, each at most once in line and never with two workers at the same time.

The semantics are client-go's (`util/workqueue`): a key added while a worker has it comes again when the worker is
done; a key added twice is worked on once; failures wait longer and longer, each key by itself, so that a poisoned one
delays nobody else. Time comes from a clock, so that the tests run in virtual time.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

K = TypeVar("K")

SHORTEST_RETRY: Final = 0.2
LONGEST_RETRY: Final = 300.0


class Timer(Protocol):
    """A callback that may still be taken back."""

    def cancel(self) -> None:
        """Take it back."""


class Clock(Protocol):
    """What the queue asks of time. An asyncio event loop is one."""

    def time(self) -> float:
        """Seconds since some fixed moment."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer:
        """Call `callback` in `delay` seconds."""


@dataclass(frozen=True)
class Backoff:
    """How long the n-th failure in a row waits: doubling, less up to `spread` of it so that keys spread."""

    shortest: float = SHORTEST_RETRY
    longest: float = LONGEST_RETRY
    spread: float = 0.2

    def delay(self, failures: int, chance: float) -> float:
        """Seconds to wait after `failures` (>= 1) in a row; `chance` in [0, 1) picks the place within the spread."""
        doublings = min(failures - 1, 32)
        full = min(self.longest, self.shortest * 2.0**doublings)
        return full * (1 - self.spread * chance)


class QueueMetrics:
    """client-go's work queue metrics, by their names, so that existing dashboards show this queue too."""

    def __init__(self, registry: CollectorRegistry, name: str = "llmdeployment") -> None:
        """Register the metrics; `name` is the label of every one."""
        label = ("name",)
        self.depth = Gauge("workqueue_depth", "Keys in line", label, registry=registry).labels(name)
        self.adds = Counter("workqueue_adds", "Keys put in line", label, registry=registry).labels(name)
        self.retries = Counter("workqueue_retries", "Keys put back after a failure", label, registry=registry).labels(
            name
        )
        self.waited = Histogram(
            "workqueue_queue_duration_seconds", "How long a key stood in line", label, registry=registry
        ).labels(name)
        self.worked = Histogram(
            "workqueue_work_duration_seconds", "How long a worker had a key", label, registry=registry
        ).labels(name)


class WorkQueue(Generic[K]):
    """Keys in line, with workers, delays and retries. Not thread-safe: use it from the loop's own thread.

    Args:
        clock: where time comes from; the running event loop in production.
        chance: a number in [0, 1) for the jitter of retries.
        metrics: where adds, depth and durations are counted.
        backoff: how long failures wait.
    """

    def __init__(
        self,
        clock: Clock,
        chance: Callable[[], float],
        metrics: QueueMetrics,
        backoff: Backoff | None = None,
    ) -> None:
        self._clock = clock
        self._chance = chance
        self._metrics = metrics
        self._backoff = backoff or Backoff()
        self._line: asyncio.Queue[K] = asyncio.Queue()
        self._wanted: dict[K, float] = {}  # keys that need work, and since when
        self._working: dict[K, float] = {}  # keys that a worker has, and since when
        self._later: dict[K, tuple[float, Timer]] = {}
        self._failures: dict[K, int] = {}

    def __len__(self) -> int:
        """How many keys are in line now; those that wait for their time do not count."""
        return self._line.qsize()

    def add(self, key: K) -> None:
        """Ask for work on `key` now. Nothing changes when it is in line already."""
        if key in self._wanted:
            return
        self._wanted[key] = self._clock.time()
        self._metrics.adds.inc()
        if key not in self._working:
            self._put(key)

    def add_after(self, key: K, delay: float) -> None:
        """Ask for work on `key` in `delay` seconds; of several wishes the earliest counts."""
        if delay <= 0:
            self.add(key)
            return
        when = self._clock.time() + delay
        planned = self._later.get(key)
        if planned is not None:
            if planned[0] <= when:
                return
            planned[1].cancel()
        self._later[key] = (when, self._clock.call_later(delay, lambda: self._due(key)))

    def retry(self, key: K) -> float:
        """Put `key` back after a failure; returns the seconds that it waits."""
        self._failures[key] = self._failures.get(key, 0) + 1
        delay = self._backoff.delay(self._failures[key], self._chance())
        self._metrics.retries.inc()
        self.add_after(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """The work on `key` succeeded: its next failure waits shortly again."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """Wait for a key that no other worker has. The caller must call `done` with it."""
        key = await self._line.get()
        now = self._clock.time()
        self._metrics.depth.set(len(self))
        self._metrics.waited.observe(now - self._wanted.pop(key))
        self._working[key] = now
        return key

    def done(self, key: K) -> None:
        """The worker lets go of `key`; it goes back in line when it was asked for meanwhile."""
        self._metrics.worked.observe(self._clock.time() - self._working.pop(key))
        if key in self._wanted:
            self._put(key)

    def _put(self, key: K) -> None:
        self._line.put_nowait(key)
        self._metrics.depth.set(len(self))

    def _due(self, key: K) -> None:
        self._later.pop(key, None)
        self.add(key)
