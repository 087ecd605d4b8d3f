"""Servers that stay up for the whole run and are stopped (SIGSTOP) while another one is measured."""

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.runtime.answers import ServerError
from bench.runtime.cells import Cell
from bench.runtime.load import Target
from bench.runtime.processes import Usage, tree, usage
from bench.runtime.say import say

# vLLM compiles the model at its first start.
_START_SECONDS = 1200
_LOG_BYTES = 3000


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How a server is started, and how to ask it."""

    build: str
    """What exactly is measured: versions, and how it was built."""
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables besides those that are set already."""
    port: int
    model: str
    """Its name for the model."""
    ready_path: str
    """Answered with 200 once it can be measured."""
    extra: Mapping[str, Any]
    """Fields of a request's body that only it knows."""
    stops: bool
    """Whether it ends the work for a client that left."""
    cells: frozenset[str] | None = None
    """Names of those that it is measured in; None: all."""


@dataclass(frozen=True)
class Server:
    """A running server."""

    name: str
    launch: Launch
    process: subprocess.Popen[bytes]

    @property
    def target(self) -> Target:
        """How to ask it."""
        launch = self.launch
        return Target(launch.port, launch.model, launch.extra, launch.stops)

    def measures(self, cell: Cell) -> bool:
        """Whether it is measured in this cell."""
        return self.launch.cells is None or cell.name in self.launch.cells

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Let it run until the block ends.

        Raises:
            ServerError: it has ended.
        """
        if self.process.poll() is not None:
            raise ServerError(f"{self.name} has ended with code {self.process.returncode}")
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.sleep()

    def sleep(self) -> None:
        """Take no more time on the processor."""
        self._signal(signal.SIGSTOP)

    def usage(self) -> Usage:
        """What it takes of the machine."""
        return usage(self.process.pid)

    def explain(self, error: ServerError) -> ServerError:
        """The error, and how the server ended where it did."""
        code = self.process.poll()
        return error if code is None else ServerError(f"{error} (its process ended with code {code})")

    def end(self) -> None:
        """Take it and its processes away."""
        self._signal(signal.SIGKILL)
        self.process.wait()

    def _signal(self, number: signal.Signals) -> None:
        for pid in tree(self.process.pid):
            with suppress(ProcessLookupError):  # it ended meanwhile
                os.kill(pid, number)


def free_port() -> int:
    """A port on loopback that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def start(name: str, launch: Launch, log: Path) -> Server:
    """Start a server, wait until it answers, and put it to sleep.

    Raises:
        ServerError: it ended, or was not ready in time; with the end of its log.
    """
    say(f"starting {name}: {launch.build}")
    begun = time.monotonic()
    with log.open("wb") as output:
        # A session of its own, so that Ctrl-C ends it by `end` and not in the middle of a measurement.
        process = subprocess.Popen(
            launch.command,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **launch.environment},
            start_new_session=True,
        )
    server = Server(name, launch, process)
    try:
        _wait(server, begun + _START_SECONDS, log)
    except BaseException:  # Ctrl-C as well: nobody else knows of the process yet
        server.end()
        raise
    say(f"{name} is ready after {time.monotonic() - begun:.1f} s")
    server.sleep()
    return server


def _wait(server: Server, deadline: float, log: Path) -> None:
    while not _answers(server.launch.port, server.launch.ready_path):
        code = server.process.poll()
        if code is not None:
            raise ServerError(f"{server.name} ended with code {code}; its log ends with:\n{_end(log)}")
        if time.monotonic() > deadline:
            raise ServerError(f"{server.name} was not ready after {_START_SECONDS} s; its log ends with:\n{_end(log)}")
        time.sleep(0.2)


def _end(log: Path) -> str:
    return log.read_bytes()[-_LOG_BYTES:].decode(errors="replace")


def _answers(port: int, path: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
            return bool(response.status == 200)  # noqa: PLR2004 - HTTP
    except OSError:
        return False
