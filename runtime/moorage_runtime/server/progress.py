"""What a person sees while the model loads: one line that moves on a terminal, a line per phase in a log."""

import sys
from typing import TextIO

from moorage_runtime.engine.messages import Started
from moorage_runtime.server.options import Options

_BAR = 24


class Progress:
    """Writes to `out`, which is standard error: standard output stays free."""

    def __init__(self, out: TextIO = sys.stderr) -> None:
        self._out = out
        self._terminal = out.isatty()
        self._phase = ""
        self._open = False

    def show(self, phase: str, fraction: float, message: str) -> None:
        """How far the start has come."""
        if self._terminal:
            bar = ("█" * round(fraction * _BAR)).ljust(_BAR, "░")
            self._out.write(f"\r\x1b[2K{bar} {fraction:4.0%}  {message}")
            self._open = True
        elif phase != self._phase:
            self._out.write(f"{message}\n")
        self._phase = phase
        self._out.flush()

    def ready(self, engine: Started, options: Options, port: int) -> None:
        """Where the model answers."""
        self.close()
        host = "127.0.0.1" if options.host in ("0.0.0.0", "::") else options.host  # noqa: S104 - compared, not bound
        self._out.write(
            f"{options.served_name} is ready on http://{host}:{port}/v1 after {engine.load_seconds:.1f} s "
            f"({engine.architecture}, {engine.kernels}, context {engine.context_length} tokens, "
            f"up to {engine.max_running} at once)\n"
        )
        self._out.flush()

    def close(self) -> None:
        """Leave the moving line."""
        if self._open:
            self._out.write("\r\x1b[2K")
            self._open = False
