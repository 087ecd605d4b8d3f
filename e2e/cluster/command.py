"""Running other programs: what they print is shown only when they fail."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from e2e.cluster.progress import Progress
from e2e.cluster.provider import ClusterError

_SHOWN_LINES = 15


def run(
    argv: Sequence[str | Path],
    *,
    text: str | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a program to its end and return what it printed on standard output.

    Args:
        argv: The program and its arguments.
        text: Its standard input; empty when left out.
        cwd: Its working directory.
        env: Variables to set besides those of this process.

    Raises:
        ClusterError: it failed; the message ends with the last lines that it printed.
    """
    done = subprocess.run(
        [str(word) for word in argv],
        input=text or "",
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        check=False,
    )
    if done.returncode:
        raise failure(argv, done.returncode, done.stderr + done.stdout)
    return done.stdout


def failure(argv: Sequence[str | Path], code: int, output: str) -> ClusterError:
    """Describe a program that failed: which, how, and the end of what it said."""
    words = " ".join(str(word) for word in argv[:4])
    tail = "\n  ".join(output.strip().splitlines()[-_SHOWN_LINES:]) or "(it printed nothing)"
    return ClusterError(f"`{words}` failed with exit code {code}:\n  {tail}")


def which(program: str) -> str | None:
    """Find a program; the folders of system programs are searched as well, which a person's PATH may lack."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    return shutil.which(program, path=path)


@contextmanager
def lock(path: Path, progress: Progress, what: str) -> Iterator[None]:
    """Keep other processes of this tool out of `what`.

    The kernel frees the lock even when this process is killed. The file goes with the lock, so that nothing is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("a") as handle:
            _wait_for_lock(handle, progress, what)
            if not _is_at(path, handle):  # the one who held it before took its file away: lock the new one
                continue
            try:
                yield
            finally:
                path.unlink()
            return


def _wait_for_lock(handle: IO[str], progress: Progress, what: str) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with progress.step(f"waiting for another process that works on {what}"):
            fcntl.flock(handle, fcntl.LOCK_EX)


def _is_at(path: Path, handle: IO[str]) -> bool:
    try:
        return path.stat().st_ino == os.fstat(handle.fileno()).st_ino
    except FileNotFoundError:
        return False
