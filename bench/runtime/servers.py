"""Servers that stay up for the whole run and are stopped (SIGSTOP) while another one is measured."""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from bench.runtime.say import say

_START_SECONDS = 600


@dataclass(frozen=True)
class Server:
    """A running server; `model` is its name for the model."""

    name: str
    port: int
    model: str
    process: subprocess.Popen[bytes]

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Let it run until the block ends."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.sleep()

    def sleep(self) -> None:
        """Take no more time on the processor."""
        self._signal(signal.SIGSTOP)

    def end(self) -> None:
        """Take it and its processes away."""
        for pid in _tree(self.process.pid):
            os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def _signal(self, number: signal.Signals) -> None:
        for pid in _tree(self.process.pid):
            os.kill(pid, number)


def free_port() -> int:
    """A port on loopback that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How a server is started; it answers `ready_path` with 200 once it can be measured."""

    name: str
    command: Sequence[str]
    port: int
    model: str
    ready_path: str


def start(launch: Launch, log: TextIO) -> Server:
    """Start a server, wait until it answers, and put it to sleep."""
    name = launch.name
    say(f"starting {name}")
    begun = time.monotonic()
    # A session of its own, so that Ctrl-C ends it by `end` and not in the middle of a measurement.
    process = subprocess.Popen(launch.command, stdout=log, stderr=log, start_new_session=True)
    server = Server(name, launch.port, launch.model, process)
    while not _answers(launch.port, launch.ready_path):
        if process.poll() is not None:
            raise SystemExit(f"{name} ended with code {process.returncode}; its log: {log.name}")
        if time.monotonic() - begun > _START_SECONDS:
            server.end()
            raise SystemExit(f"{name} was not ready after {_START_SECONDS} s; its log: {log.name}")
        time.sleep(0.2)
    say(f"{name} is ready after {time.monotonic() - begun:.1f} s")
    server.sleep()
    return server


def _answers(port: int, path: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
            return bool(response.status == 200)  # noqa: PLR2004 - HTTP
    except (urllib.error.URLError, OSError):
        return False


def _tree(pid: int) -> list[int]:
    """A process and its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [pid, *(found for child in children for found in _tree(int(child)))]
