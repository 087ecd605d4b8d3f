"""The engine's process: one socket, one thread, one loop.

    python -m moorage_runtime.model.process --model DIR --max-running N --socket ADDRESS

The protocol is in `moorage_runtime.engine.messages`. The process dies with the one that started it. Only its main
thread computes: a second one in Python would take the interpreter from it between steps.

With `--tensor-parallel` the model is computed by several such processes: this one leads them as rank 0, or is another
rank (`moorage_runtime.model.rank_process`). A pod's first rank starts the others of its pod.
"""

import ctypes
import os
import secrets
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext

import msgspec

from moorage_runtime.engine.core import Engine
from moorage_runtime.engine.errors import StartError
from moorage_runtime.engine.messages import Cancel, Command, FollowerLeaves, Shutdown, Stats, Step, Submit
from moorage_runtime.group.leader import Leader
from moorage_runtime.group.place import Place
from moorage_runtime.group.siblings import Siblings
from moorage_runtime.model.arguments import Asked, parse, start_siblings
from moorage_runtime.model.channel import Channel
from moorage_runtime.model.rank_process import RankProcess
from moorage_runtime.model.start import start

_RATE_SECONDS = 5.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Rate:
    """Tokens per second over the last seconds."""

    def __init__(self) -> None:
        self._counted: deque[tuple[float, int]] = deque()

    def add(self, now: float, tokens: int) -> float:
        """Count the tokens of a step that ended now; the rate with them."""
        self._counted.append((now, tokens))
        while self._counted[0][0] < now - _RATE_SECONDS:
            self._counted.popleft()
        first = self._counted[0][0]
        # The first entry marks where the window starts; its tokens were computed before.
        counted = sum(count for _, count in self._counted) - self._counted[0][1]
        return counted / (now - first) if now > first else 0.0


def serve(engine: Engine, channel: Channel, tend: Callable[[], None] | None = None) -> None:
    """Commands in, a step, its outputs out, until told to stop.

    Between steps `tend` is called, and while there is nothing to compute every second.
    """
    rate = Rate()
    stopping = False
    while engine.has_work or not stopping:
        for command in channel.receive(wait=not engine.has_work, tend=tend):
            stopping |= _obey(engine, command)
        if engine.has_work:
            if tend is not None:
                tend()
            channel.send(_step(engine, rate))
            if not engine.has_work and (stopping or channel.is_quiet()):
                engine.check()


def _obey(engine: Engine, command: Command) -> bool:
    """Whether the process is to stop when nothing is left to do."""
    match command:
        case Submit():
            engine.submit(_seeded(command), time.monotonic())
        case Cancel():
            engine.cancel(command.id)
        case Shutdown():
            engine.cancel_all()
    return isinstance(command, Shutdown)


def _seeded(request: Submit) -> Submit:
    if request.sampling.seed is not None:
        return request
    sampling = msgspec.structs.replace(request.sampling, seed=secrets.randbits(63))
    return msgspec.structs.replace(request, sampling=sampling)


def _step(engine: Engine, rate: Rate) -> Step:
    began = time.monotonic()
    report = engine.step(began)
    now = time.monotonic()
    tokens_per_second = rate.add(now, report.generated_tokens)
    stats = Stats(
        running=engine.running,
        waiting=engine.waiting,
        kv_utilization=engine.kv_utilization,
        tokens_per_second=tokens_per_second if engine.has_work else 0.0,
        step_seconds=now - began,
        prompt_tokens=report.prompt_tokens,
        generated_tokens=report.generated_tokens,
        preemptions=report.preemptions,
        cached_prompt_tokens=report.cached_prompt_tokens,
    )
    return Step(report.outputs, stats)


def _die_with_parent() -> None:
    """Have the kernel end this process when its parent's is gone; a parent that is gone already is noticed here."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit("the process that started this engine is gone")
    # Ctrl-C in a terminal reaches both processes; the parent decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def main(argv: list[str] | None = None) -> None:
    """Run the engine, or another rank of its group, until it is told to stop, its parent dies or it fails."""
    _die_with_parent()
    asked = parse(argv)
    try:
        # Siblings are waited for last: who waits for answers is told before that.
        with Siblings() as siblings, Channel(asked.socket) if asked.socket else nullcontext() as channel:
            if asked.place is not None and asked.rank > 0:
                RankProcess(asked, asked.place, channel, siblings).run()
            elif channel is None:
                raise SystemExit("rank 0 needs --socket")
            elif asked.place is not None:
                _lead(asked, asked.place, channel, siblings)
            else:
                engine, started = start(asked.settings, channel.send)
                channel.send(started)
                serve(engine, channel)
    except StartError as error:  # expected, and told over the channel, which the other end prints: no traceback
        if asked.socket is None:
            print(f"rank {asked.rank}: {error}", file=sys.stderr)  # noqa: T201 - nobody else says it
        raise SystemExit(1) from None


def _lead(asked: Asked, place: Place, channel: Channel, siblings: Siblings) -> None:
    with Leader(place, siblings) as leader:
        start_siblings(siblings, asked, 0, leader.address, leader.memory)
        engine, started = start(asked.settings, channel.send, leader)
        channel.send(started)
        channel.watch(leader.filenos())

        def tend() -> None:
            for rank in leader.tend():
                channel.send(FollowerLeaves(rank))

        serve(engine, channel, tend)


if __name__ == "__main__":
    main()
