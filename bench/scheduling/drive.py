"""Jobs through an engine, on a clock that shows what steps cost: as they are priced, or as they are computed."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from bench.scheduling.cost import StepCost, request
from bench.scheduling.jobs import Job
from moorage_runtime.engine.core import Engine
from moorage_runtime.engine.plan import Sampled, StepPlan


@dataclass(slots=True)
class Seen:
    """Seconds from a job's arrival to its first and to its last token."""

    job: Job
    first: float = 0.0
    done: float = 0.0


@dataclass(slots=True)
class Outcome:
    """All jobs of one policy."""

    seen: list[Seen] = field(default_factory=list)
    preemptions: int = 0


class Clock(Protocol):
    """Seconds since the start."""

    def now(self) -> float:
        """What it shows."""
        ...

    def wait_until(self, then: float) -> None:
        """Let the time pass in which there is nothing to do."""
        ...


class CpuClock:
    """What this process has computed, without the moments in which the machine computed for others.

    With one thread it is what a clock on the wall shows on a machine that has nothing else to do.
    """

    def __init__(self) -> None:
        self._start = time.process_time()

    def now(self) -> float:
        """CPU-seconds since it was made, and what was jumped over."""
        return time.process_time() - self._start

    def wait_until(self, then: float) -> None:
        """Jump."""
        self._start -= max(0.0, then - self.now())


class SimulatedClock:
    """Moved on by what steps cost."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        """Seconds that were passed."""
        return self._now

    def wait_until(self, then: float) -> None:
        """Jump."""
        self._now = max(self._now, then)


class PricedRunner:
    """Computes nothing, and has each step take what its chunks cost."""

    def __init__(self, cost: StepCost, clock: SimulatedClock) -> None:
        self._cost = cost
        self._clock = clock

    def execute(self, plan: StepPlan) -> list[Sampled]:
        """One token for each chunk that samples."""
        rows = sum(1 for chunk in plan.chunks if chunk.count == 1)
        tokens = sum(chunk.count for chunk in plan.chunks if chunk.count > 1)
        self._clock.wait_until(self._clock.now() + self._cost.seconds(rows, tokens))
        return [Sampled(0) for chunk in plan.chunks if chunk.samples]


def drive(engine: Engine, clock: Clock, jobs: list[Job], told: Callable[[int], None]) -> Outcome:
    """Submit each job when it arrives, step while there is work; `told` hears how many are done.

    Raises:
        RuntimeError: a job ended otherwise than by its length.
    """
    outcome, waiting = Outcome(), list(reversed(jobs))
    seen = {job.name: Seen(job) for job in jobs}
    while waiting or engine.has_work:
        if not engine.has_work:
            clock.wait_until(waiting[-1].arrival)
        while waiting and waiting[-1].arrival <= clock.now():
            job = waiting.pop()
            # What `Priority` could do if clients knew and told which of their requests are long.
            engine.submit(request(job.name, job.prompt, job.out, priority=int(job.is_long)), clock.now())
        report = engine.step(clock.now())
        outcome.preemptions += report.preemptions
        now = clock.now()
        for output in report.outputs:
            one = seen[output.id]
            one.first = one.first or now - one.job.arrival
            if output.finish_reason is None:
                continue
            if output.finish_reason != "length":
                raise RuntimeError(f"job {output.id} ended with {output.finish_reason}: {output.error}")
            one.done = now - one.job.arrival
            outcome.seen.append(one)
            told(len(outcome.seen))
    return outcome
