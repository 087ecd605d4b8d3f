"""The engine's process: one socket, one thread, one loop.

    python -m moorage_runtime.model.process --model DIR --max-running N --socket ADDRESS

The protocol is in `moorage_runtime.engine.messages`. The process dies with the one that started it. Only its main
thread computes: a second one in Python would take the interpreter from it between steps.
"""

import argparse
import ctypes
import os
import secrets
import signal
import sys
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Self, get_args

import msgspec
import zmq

from moorage_runtime.engine import policy
from moorage_runtime.engine.core import Engine
from moorage_runtime.engine.messages import (
    Cancel,
    Command,
    Event,
    Failed,
    Shutdown,
    Stats,
    Step,
    Submit,
    decode_commands,
    encode_events,
)
from moorage_runtime.model.device import Device
from moorage_runtime.model.errors import StartError
from moorage_runtime.model.quantized import Quantization
from moorage_runtime.model.start import Settings, start

_RATE_SECONDS = 5.0
_LINGER_MS = 2000
_QUIET_MS = 250
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Channel:
    """The engine's end of the socket. An exception that leaves its `with` is told to the other end as `Failed`."""

    def __init__(self, address: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.linger = _LINGER_MS
        self._socket.connect(address)

    def send(self, event: Event) -> None:
        """One frame; waits while the other end has too many unread."""
        self._socket.send(encode_events([event]))

    def receive(self, *, wait: bool) -> list[Command]:
        """Everything that has arrived; with `wait`, at least one frame."""
        commands: list[Command] = decode_commands(self._socket.recv()) if wait else []
        while self._socket.poll(0):
            commands += decode_commands(self._socket.recv())
        return commands

    def is_quiet(self) -> bool:
        """Whether nothing arrives for a moment, so that nobody waits for what is done meanwhile."""
        return not self._socket.poll(_QUIET_MS)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Tell why, then close; the exception goes on and ends the process with code 1."""
        if isinstance(error, StartError):
            self.send(Failed(error.reason, str(error)))
        elif isinstance(error, Exception):
            self.send(Failed("EngineFailed", f"{type(error).__name__}: {error}"))
        self._socket.close()
        self._context.term()


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


def serve(engine: Engine, channel: Channel) -> None:
    """Commands in, a step, its outputs out, until told to stop."""
    rate = Rate()
    stopping = False
    while engine.has_work or not stopping:
        for command in channel.receive(wait=not engine.has_work):
            stopping |= _obey(engine, command)
        if engine.has_work:
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


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="moorage_runtime.model.process", description="The engine of moorage-runtime.")
    parser.add_argument("--model", type=Path, required=True, help="folder with safetensors, or a GGUF file")
    parser.add_argument("--socket", required=True, help="ZeroMQ address that the API process has bound")
    parser.add_argument("--max-running", type=int, default=64, help="requests computed together; default: 64")
    parser.add_argument("--context-length", type=int, help="tokens of a request; default: the model's")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), help="default: the checkpoint's")
    parser.add_argument("--quantization", choices=get_args(Quantization), help="round the weights as they are loaded")
    parser.add_argument("--device", choices=get_args(Device), help="default: a GPU where there is one")
    parser.add_argument("--threads", type=int, help="compute threads; default: the control group's quota")
    parser.add_argument("--kv-tokens", type=int, help="size of the KV cache; default: what fits the memory limit")
    parser.add_argument("--scheduling-policy", choices=policy.NAMES, default="FCFS", help="default: %(default)s")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Run the engine until it is told to stop, its parent dies or it fails."""
    _die_with_parent()
    asked = vars(_arguments(argv))
    try:
        with Channel(asked.pop("socket")) as channel:
            engine, started = start(Settings(**asked), channel.send)
            channel.send(started)
            serve(engine, channel)
    except StartError:  # expected, and told over the channel in words, which the other end prints: no traceback
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
