"""Long-lived processes: started apart from the terminal, found again, and ended without ever hitting a stranger.

A process number alone is not enough to end a process safely: after a while the kernel gives it to another one. So the
time at which the process started is recorded with it and compared first.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from e2e.cluster.provider import ClusterError

_LOG_LINES: Final = 12


@dataclass(frozen=True)
class Process:
    """A process, named so that no later one can be mistaken for it."""

    pid: int
    start_time: int
    """In clock ticks since boot: field 22 of `/proc/PID/stat`."""

    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        fields = _stat(self.pid)
        return fields is not None and fields[0] != "Z" and int(fields[19]) == self.start_time


@dataclass(frozen=True)
class Supervisor:
    """Starts the processes of one cluster and keeps a record of each in a folder."""

    folder: Path
    prefix: tuple[str, ...] = ()
    """Put before every command: what enters a namespace, or ties the process to the life of this one."""

    @property
    def logs(self) -> Path:
        """The folder with one log file per process."""
        return self.folder / "logs"

    def start(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> Process:
        """Start a process in a session of its own, so that ctrl-C and the end of a terminal do not reach it."""
        self.logs.mkdir(parents=True, exist_ok=True)
        words = [*self.prefix, *(str(word) for word in argv)]
        with self._log(name).open("ab") as log:
            child = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                pass_fds=pass_fds,
            )
        child.returncode = 0  # nobody waits for it here: without this Python warns that it still runs
        process = identify(child.pid)
        if process is None:
            raise self.failure(name, "ended at once")
        self._record(name).parent.mkdir(exist_ok=True)
        self._record(name).write_text(json.dumps({"argv": words, **asdict(process)}))
        return process

    def recorded(self) -> dict[str, Process]:
        """Return every process that was started and not ended by `stop`, in the order in which they started."""
        found = {}
        for path in self.folder.glob("processes/*.json"):
            # An empty record: `up` was killed while it wrote it. The cluster's own traces still find that process.
            with contextlib.suppress(json.JSONDecodeError):
                record = json.loads(path.read_text())
                found[path.stem] = Process(record["pid"], record["start_time"])
        return dict(sorted(found.items(), key=lambda item: item[1].start_time))

    def dead(self) -> list[str]:
        """Return the names of the processes that were started and do not run any more."""
        return [name for name, process in self.recorded().items() if not process.alive()]

    def stop(self, *names: str, deadline: float = 10.0) -> None:
        """End the named processes, else every one of the record, the last started first, and forget them."""
        for name, process in reversed(self.recorded().items()):
            if names and name not in names:
                continue
            end([process], deadline)
            self._record(name).unlink(missing_ok=True)

    def wait(self, name: str, condition: Callable[[], bool], what: str, deadline: float) -> None:
        """Wait until a condition holds, as long as the process `name` lives.

        Raises:
            ClusterError: the process ended or the time is over; the message carries the end of its log.
        """
        end_at = time.monotonic() + deadline
        while not condition():
            process = self.recorded().get(name)
            if process is None or not process.alive():
                raise self.failure(name, f"ended before {what}")
            if time.monotonic() > end_at:
                raise self.failure(name, f"did not get to {what} in {deadline:.0f} s")
            time.sleep(0.05)

    def failure(self, name: str, what: str) -> ClusterError:
        """Describe what happened to a process, with the end of its log."""
        path = self._log(name)
        lines = path.read_text(errors="replace").splitlines()[-_LOG_LINES:] if path.exists() else []
        return ClusterError("\n  ".join([f"{name} {what}; the end of {path}:", *lines]))

    def _log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def _record(self, name: str) -> Path:
        return self.folder / "processes" / f"{name}.json"


def identify(pid: int) -> Process | None:
    """Return the process that has this number now."""
    fields = _stat(pid)
    return None if fields is None or fields[0] == "Z" else Process(pid, int(fields[19]))


def every_process() -> Iterable[int]:
    """Return the number of every process of this machine."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def end(processes: Sequence[Process], deadline: float) -> None:
    """End processes: SIGTERM to all, SIGKILL to those that are left after `deadline` seconds."""
    left = [handle for process in processes if (handle := _open(process)) is not None]
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for handle in left:
                _send(handle, number)
            left = _wait(left, time.monotonic() + deadline)
    finally:
        for handle in left:
            os.close(handle)


def _open(process: Process) -> int | None:
    """Open a handle of the process that stays its own even when its number is given away meanwhile."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    if process.alive():
        return handle
    os.close(handle)
    return None


def _send(handle: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, number)


def _wait(handles: Sequence[int], until: float) -> list[int]:
    """Wait for the processes to end; close the handles of those that did and return the others."""
    left = list(handles)
    while left and (seconds := until - time.monotonic()) > 0:
        ended, _, _ = select.select(left, [], [], seconds)
        for handle in ended:
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, handle, os.WEXITED)  # reaps it when it is a child of this process
            os.close(handle)
            left.remove(handle)
    return left


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the state on: the name before it may hold blanks and brackets."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
