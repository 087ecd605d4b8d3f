"""The processes of a pod's other ranks, which its first rank starts."""

import subprocess
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

_LAST_SECONDS = 1.0


class Siblings:
    """They are told to end by the leader, over their own streams; at the end of the `with` none is left."""

    def __init__(self) -> None:
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, rank: int, command: Sequence[str], inherited: Sequence[int]) -> None:
        """Start one, which gets these file descriptors."""
        self._processes[rank] = subprocess.Popen(command, pass_fds=inherited)  # noqa: S603 - our own module

    def ended(self) -> dict[int, int]:
        """Exit codes of those that have ended, by their ranks."""
        codes = {rank: process.poll() for rank, process in self._processes.items()}
        return {rank: code for rank, code in codes.items() if code is not None}

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """All have the same moment to end in; who is stuck is killed."""
        deadline = time.monotonic() + _LAST_SECONDS
        for process in self._processes.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
