"""The engine's process: started, watched and ended from here, so that torch stays out of this one."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields

from moorage_runtime.server.options import EngineOptions

# An engine that was told to shut down and runs on after this is loading or stuck in a step; nobody waits for it.
_KILL_AFTER = 2.0


def engine_command(options: EngineOptions) -> list[str]:
    """The command line of the engine, without the address of its socket; what is None is left to the engine."""
    command = [sys.executable, "-m", "moorage_runtime.model.process"]
    for field in fields(options):
        value = getattr(options, field.name)
        if value is not None:
            command += [f"--{field.name.replace('_', '-')}", str(value)]
    return command


class EngineProcess:
    """A running engine. `exited` resolves to its exit code; below zero: the signal that ended it, negated."""

    def __init__(self, command: Sequence[str]) -> None:
        """Start it. It inherits standard error, where it logs; standard output stays this process's own."""
        # A session of its own: Ctrl-C at a terminal reaches this process alone, which then drains the engine.
        self._child = subprocess.Popen(command, stdout=sys.stderr, start_new_session=True)  # noqa: S603 - our own module
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int] = self._loop.create_future()
        # A pidfd instead of SIGCHLD: process 1 also reaps strangers (`reap_orphans`), which must not take this one.
        self._pidfd = os.pidfd_open(self._child.pid)
        self._loop.add_reader(self._pidfd, self._reap)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.pid

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        code = self._child.wait()
        if not self.exited.done():
            self.exited.set_result(code)

    async def end(self) -> int:
        """Wait a moment for the end that it was told to make, then make it; its exit code."""
        try:
            return await asyncio.wait_for(asyncio.shield(self.exited), _KILL_AFTER)
        except TimeoutError:
            self._child.kill()
            return await self.exited


def describe_exit(code: int) -> str:
    """An exit code in words: `was killed by SIGKILL`, `ended with exit code 1`."""
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def reap_orphans(engine: int) -> None:
    """Take the exit codes of processes that were left to this one, as process 1 must; not the engine's."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid == engine:
            return
        os.waitpid(found.si_pid, 0)
