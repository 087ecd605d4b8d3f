"""What a person sees while the model loads: one line that moves on a terminal, a line per phase in a log."""

import shlex
import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

import orjson

from moorage_runtime.engine.messages import FollowerLeaves, Joined, Started
from moorage_runtime.server.options import Options

_BAR = 24
_REDRAW_SECONDS = 0.1
_ANYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound


class Progress:
    """Writes to `out`, which is standard error: standard output stays free."""

    def __init__(self, out: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Standard error of the moment, where `out` is left out."""
        self._out = out or sys.stderr
        self._terminal = self._out.isatty()
        self._clock = clock
        self._began = clock()
        self._phase = ""
        self._drawn = 0.0
        self._said = (0.0, "starting the engine")
        self._open = False
        self._over = False

    def show(self, phase: str, fraction: float, message: str) -> None:
        """How far the start has come."""
        self._said = fraction, message
        if phase != self._phase:
            self._phase, self._drawn = phase, 0.0
            if not self._terminal:
                self._write(f"{phase}: {message}\n")
        self.tick()

    def tick(self) -> None:
        """Move the seconds of the line on a terminal."""
        now = self._clock()
        if self._over or not self._terminal or now < self._drawn + _REDRAW_SECONDS:
            return
        fraction, message = self._said
        bar = ("█" * round(fraction * _BAR)).ljust(_BAR, "░")
        line = f"{bar} {fraction:4.0%} {now - self._began:3.0f} s  {message}"
        # A line that wraps could not be taken back.
        self._write(f"\r\x1b[2K{line[: shutil.get_terminal_size().columns - 1]}")
        self._open, self._drawn = True, now

    def ready(self, engine: Started, options: Options, port: int, *, chats: bool) -> None:
        """Where the model answers: with what to type next on a terminal, with what was chosen in a log."""
        self.close()
        host = "127.0.0.1" if options.host in _ANYWHERE else options.host
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
        after = f"{options.served_name} is ready on {url} after {self._clock() - self._began:.1f} s"
        if self._terminal:
            self._write(f"{after}. Try: {_curl(url, options.served_name, chats=chats)}\n")
            return
        self._write(
            f"{after} ({engine.architecture}, {engine.kernels}, {engine.threads} threads, "
            f"context {engine.context_length} tokens, up to {engine.max_running} at once, "
            f"{engine.kv_capacity_tokens} tokens in memory)\n"
        )

    def joined(self, event: Joined) -> None:
        """A rank that follows is ready."""
        self.close()
        after = f"{self._clock() - self._began:.1f} s"
        self._write(f"rank {event.rank} of {event.ranks} has joined after {after}; rank 0 takes the requests\n")

    def leaves(self, event: FollowerLeaves) -> None:
        """Another pod of this group was told to end."""
        self.close()
        self._write(f"rank {event.rank} was told to stop, and with it all ranks of its group\n")

    def draining(self, sequences: int) -> None:
        """The first signal to stop has come."""
        self.close()
        if sequences:
            self._write(f"stopping: {sequences} running answers finish; a second signal (Ctrl-C) ends them at once\n")

    def close(self) -> None:
        """Leave the moving line, for good."""
        self._over = True
        if self._open:
            self._write("\r\x1b[2K")
            self._open = False

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def _curl(url: str, name: str, *, chats: bool) -> str:
    """A command to copy, quoted for the shell."""
    body: dict[str, object] = {"model": name}
    if chats:
        body["messages"] = [{"role": "user", "content": "Hello!"}]
    else:
        body["prompt"] = "Once upon a time"
    return f"curl {url}/{'chat/' if chats else ''}completions -d {shlex.quote(orjson.dumps(body).decode())}"
