"""What a person sees while something takes long: one line per step, with its seconds."""

import io
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


class Step:
    """A step that is going on. `note` says how far it is; on a terminal the line is rewritten in place."""

    def __init__(self, label: str, out: TextIO) -> None:
        self._label = label
        self._out = out
        self._started = time.monotonic()
        self._last_plain = self._started
        self._detail = ""

    @property
    def seconds(self) -> float:
        """How long the step has been going on."""
        return time.monotonic() - self._started

    def note(self, detail: str) -> None:
        """Say how far it is. Elsewhere than on a terminal at most every 15 s, so that a CI log stays readable."""
        if self._out.isatty():
            self._out.write(f"\r\x1b[K… {self._label} {self.seconds:.0f} s {detail}")
            self._out.flush()
        elif time.monotonic() - self._last_plain >= _PLAIN_INTERVAL:
            self._last_plain = time.monotonic()
            print(f"… {self._label} {self.seconds:.0f} s {detail}", file=self._out, flush=True)

    def result(self, detail: str) -> None:
        """Say something that stands behind the finished step: a version, a count, an address."""
        self._detail = detail

    def _end(self, mark: str) -> None:
        start = "\r\x1b[K" if self._out.isatty() else ""
        detail = f"  {self._detail}" if self._detail else ""
        print(f"{start}{mark} {self._label} {self.seconds:.1f} s{detail}", file=self._out, flush=True)


_PLAIN_INTERVAL = 15.0


class Progress:
    """Prints the steps of one command, on standard error: standard output belongs to the command's answer."""

    def __init__(self, out: TextIO | None = None, *, quiet: bool = False) -> None:
        self._out = io.StringIO() if quiet else out or sys.stderr

    @contextmanager
    def step(self, label: str) -> Iterator[Step]:
        """Show a step: `… label` on a terminal while it goes on, then `✓ label 0.4 s`, or `✗ label 0.4 s`."""
        step = Step(label, self._out)
        if self._out.isatty():
            step.note("")
        try:
            yield step
        except BaseException:
            step._end("✗")  # noqa: SLF001 - a step is ended here and nowhere else
            raise
        step._end("✓")  # noqa: SLF001

    def say(self, line: str) -> None:
        """Print a line that belongs to no step."""
        print(line, file=self._out, flush=True)
