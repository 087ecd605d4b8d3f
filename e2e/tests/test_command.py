"""Locks and messages of the tool."""

import fcntl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from e2e.cluster.command import lock, run
from e2e.cluster.paths import REPOSITORY
from e2e.cluster.progress import Progress
from e2e.cluster.provider import ClusterError

HOLD = """
import pathlib, sys
from e2e.cluster.command import lock
from e2e.cluster.progress import Progress
with lock(pathlib.Path(sys.argv[1]), Progress(quiet=True), "x"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock until its standard input ends."""
    argv = [sys.executable, "-c", HOLD, str(tmp_path / "lock")]
    with subprocess.Popen(argv, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_a_lock_leaves_no_file(tmp_path):
    with lock(tmp_path / "a" / "lock", Progress(quiet=True), "x"):
        assert (tmp_path / "a" / "lock").exists()
    assert list((tmp_path / "a").iterdir()) == []


def test_a_lock_waits_for_its_holder_and_says_so(tmp_path, holder):
    argv = [sys.executable, "-c", HOLD.replace("quiet=True", ""), str(tmp_path / "lock")]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, cwd=REPOSITORY, stdin=pipe, stdout=pipe, stderr=pipe) as waiting:
        end = time.monotonic() + 60
        while not any(is_blocked(line, waiting.pid) for line in Path("/proc/locks").read_text().splitlines()):
            assert time.monotonic() < end, "it did not wait for the lock"
            time.sleep(0.01)
        holder.stdin.close()
        assert waiting.stdout.readline() == b"held\n"
        waiting.stdin.close()
        assert b"waiting for another process that works on x" in waiting.stderr.read()


def is_blocked(line: str, pid: int) -> bool:
    """Whether a line of /proc/locks says that the process waits: `8: -> FLOCK ADVISORY WRITE 123 …`."""
    fields = line.split()
    return fields[1] == "->" and fields[5] == str(pid)


def test_the_lock_of_a_killed_process_is_free(tmp_path, holder):
    holder.kill()
    holder.wait()
    with (
        lock(tmp_path / "lock", Progress(quiet=True), "x"),
        (tmp_path / "lock").open() as again,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_failed_command_tells_the_end_of_what_it_said():
    with pytest.raises(ClusterError, match=r"`sh -c .* failed with exit code 3:\n  .*gone wrong"):
        run(["sh", "-c", "echo it has gone wrong >&2; exit 3"])


def test_a_silent_failure_says_that_it_was_silent():
    with pytest.raises(ClusterError, match=r"exit code 1:\n  \(it printed nothing\)"):
        run(["false"])
