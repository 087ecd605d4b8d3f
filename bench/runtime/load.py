"""The load: a closed loop of clients for a warm-up and a window."""

import asyncio
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson
import uvloop

from bench.runtime.answers import Answer, Sample, ServerError, sample
from bench.runtime.cells import Cell
from bench.runtime.client import Client
from bench.runtime.prompts import body

T = TypeVar("T")
# How many windows a measurement may take at most, and how long answers may take to end after it.
_PATIENCE = 8
_DRAIN_SECONDS = 60.0
# For one answer while nobody else asks: the first one may have something compiled.
_ANSWER_SECONDS = 300.0
# Clients begin spread over this share of the warm-up, so that they do not march in step through the window.
_SPREAD = 0.8


@dataclass(frozen=True)
class Target:
    """Where and for what to ask."""

    port: int
    model: str
    extra: Mapping[str, Any]
    """Fields of the body that this server wants besides."""
    stops: bool
    """Whether it ends the work for a client that left. Where not, answers are read to their end after the window, so
    that they do not burden the next one."""


@dataclass(frozen=True)
class Timing:
    """Seconds."""

    warm_up: float
    window: float


@dataclass
class _Crowd:
    """Clients that ask until they are told to stop."""

    target: Target
    cell: Cell
    answers: list[Answer] = field(default_factory=list)
    stopping: bool = False

    async def client(self, delay: float) -> None:
        """Ask and ask again."""
        await asyncio.sleep(delay)
        client = Client(self.target.port)
        try:
            while not self.stopping:
                data = orjson.dumps(body(self.cell, self.target.model, self.target.extra))
                answer = Answer(time.monotonic())
                self.answers.append(answer)
                await client.ask(data, answer)
        finally:
            client.close()


def measure(target: Target, cell: Cell, timing: Timing) -> tuple[Sample, float]:
    """What happened in a window, and the share of a core that the clients took in it.

    Raises:
        ServerError: a request failed, or nothing came.
    """
    return _run(_measure(target, cell, timing))


def ask(target: Target, cell: Cell) -> Answer:
    """One complete answer."""
    answer = Answer(time.monotonic())
    _run(_ask(target, cell, answer))
    return answer


async def _ask(target: Target, cell: Cell, answer: Answer) -> None:
    client = Client(target.port)
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            await client.ask(orjson.dumps(body(cell, target.model, target.extra)), answer)
    except TimeoutError as error:
        raise ServerError(f"an answer was not complete after {_ANSWER_SECONDS:.0f} s") from error
    finally:
        client.close()


def _run(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


async def _measure(target: Target, cell: Cell, timing: Timing) -> tuple[Sample, float]:
    crowd = _Crowd(target, cell)
    step = _SPREAD * timing.warm_up / cell.clients
    tasks = [asyncio.create_task(crowd.client(number * step)) for number in range(cell.clients)]
    try:
        await _let(tasks, timing.warm_up)
        begin, cpu = time.monotonic(), time.process_time()
        end = await _window(crowd, tasks, timing.window)
        cpu = (time.process_time() - cpu) / (end - begin)
        if not target.stops:
            await _drain(crowd, tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    return sample(crowd.answers, begin, end), cpu


async def _window(crowd: _Crowd, tasks: list[asyncio.Task[None]], seconds: float) -> float:
    """Let the clients ask for a window, or for some where a server is so slow that one would be empty; its end."""
    for _ in range(_PATIENCE):
        await _let(tasks, seconds)
        if sum(answer.tokens is not None for answer in crowd.answers) >= crowd.cell.clients:
            break
    return time.monotonic()


async def _let(tasks: list[asyncio.Task[None]], seconds: float) -> None:
    """Let the clients ask for so long; one that fails ends the measurement."""
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()


async def _drain(crowd: _Crowd, tasks: list[asyncio.Task[None]]) -> None:
    crowd.stopping = True
    _, left = await asyncio.wait(tasks, timeout=_DRAIN_SECONDS)
    if left:
        raise ServerError(f"answers were not complete {_DRAIN_SECONDS:.0f} s after the window")
