"""Ranks that compute one model, each on a thread of this process: a loaded model as the engine's start sees it."""

import os
import socket
import weakref
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

from moorage_runtime.engine.plan import Limits, Sampled, StepPlan
from moorage_runtime.group.links import Links
from moorage_runtime.model import native
from moorage_runtime.model.division import Division
from moorage_runtime.model.settings import Settings


class Ranks:
    """All parts of one model."""

    def __init__(self, folder: Path, ranks: int, *, threads: int = 1, over: str = "memory", **asked) -> None:
        """`over`: memory or sockets, for the exchanges; `asked`: as in `Settings`."""
        self.division = Division.open(Settings(folder, 4, **asked), ranks)
        self.config = self.division.config
        self.links = links_of(ranks, over)
        self.models = [self.division.load(links, threads, lambda _done: None) for links in self.links]
        self._pool = ThreadPoolExecutor(ranks)
        weakref.finalize(self, close, self._pool, self.links)

    def runner(self, limits: Limits) -> "RanksRunner":
        """See `moorage_runtime.model.loaded.LoadedModel`."""
        return RanksRunner(self, [model.runner(limits) for model in self.models], self._pool)


class RanksRunner:
    """See `moorage_runtime.engine.plan.Runner`."""

    def __init__(self, ranks: Ranks, runners: list, pool: ThreadPoolExecutor) -> None:
        self.ranks = ranks
        self.runners = runners
        self._session = runners[0]._session
        self._pool = pool

    def execute(self, plan: StepPlan) -> list[Sampled]:
        """All ranks compute, the first one answers."""
        arrays = native.arrays_of(plan)
        others = [self._pool.submit(runner.follow, arrays) for runner in self.runners[1:]]
        try:
            return self.runners[0].compute(plan, arrays)
        finally:
            for other in others:
                other.result()


def links_of(ranks: int, over: str, controls: list[tuple[int, ...]] | None = None) -> list[Links]:
    """What each rank has to the others."""
    controls = controls or [(-1,) * ranks] * ranks
    if over == "memory":
        memory = os.memfd_create("ranks")
        return [Links(rank, ranks, ranks, controls[rank], memory) for rank in range(ranks)]
    streams: list[list[socket.socket | None]] = [[None] * ranks for _ in range(ranks)]
    for one, other in combinations(range(ranks), 2):
        streams[one][other], streams[other][one] = socket.socketpair()
    return [Links(rank, ranks, ranks, controls[rank], None, tuple(streams[rank])) for rank in range(ranks)]


def close(pool: ThreadPoolExecutor | None, links: list[Links]) -> None:
    """Give back what `links_of` made."""
    if pool is not None:
        pool.shutdown()
    if links[0].memory is not None:
        os.close(links[0].memory)
    for each in links:
        for stream in each.streams:
            if stream is not None:
                stream.close()
