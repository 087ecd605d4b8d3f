"""Processes are ended for certain, and never somebody else's."""

import json
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from e2e.cluster.processes import Process, Supervisor, end, identify
from e2e.cluster.provider import ClusterError

# Says that it is ready before it ignores nothing more: a signal that comes earlier would end it the ordinary way.
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()"


@pytest.fixture
def stranger():
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        yield process
        process.kill()


def test_a_process_that_ignores_sigterm_is_killed(stranger):
    process = identify(stranger.pid)
    end([process], deadline=0.1)
    assert not process.alive()


def test_a_later_process_with_the_same_number_is_left_alone(stranger):
    process = identify(stranger.pid)
    earlier = replace(process, start_time=process.start_time - 1)
    assert not earlier.alive()
    end([earlier], deadline=0.1)
    assert process.alive()


def test_a_record_outlives_the_one_who_wrote_it(tmp_path):
    started = Supervisor(tmp_path).start("sleeper", ["sleep", "1000"])
    other = Supervisor(tmp_path)
    assert other.recorded() == {"sleeper": started}
    assert other.dead() == []
    other.stop()
    assert not started.alive()
    assert other.recorded() == {}


def test_a_process_that_ended_is_reported_dead(tmp_path):
    supervisor = Supervisor(tmp_path)
    process = supervisor.start("sleeper", ["sleep", "1000"])
    end([process], deadline=5)
    assert supervisor.dead() == ["sleeper"]


def test_a_half_written_record_is_no_error(tmp_path):
    supervisor = Supervisor(tmp_path)
    (tmp_path / "processes").mkdir()
    (tmp_path / "processes" / "broken.json").write_text('{"pid": 1')
    assert supervisor.recorded() == {}


def test_the_wait_for_a_process_that_fails_shows_what_it_said(tmp_path):
    supervisor = Supervisor(tmp_path)
    told = "until [ -e go ]; do sleep 0.02; done; echo no such thing >&2; exit 3"
    supervisor.start("failing", ["sh", "-c", told])
    (tmp_path / "go").touch()
    with pytest.raises(ClusterError, match=r"(?s)failing ended before being ready; the end of .*no such thing"):
        supervisor.wait("failing", lambda: False, "being ready", deadline=30)


def test_the_wait_has_a_deadline(tmp_path):
    supervisor = Supervisor(tmp_path)
    supervisor.start("idle", ["sleep", "1000"])
    with pytest.raises(ClusterError, match="idle did not get to being ready in 0 s"):
        supervisor.wait("idle", lambda: False, "being ready", deadline=0.1)
    supervisor.stop()


def test_a_record_names_the_command_with_its_prefix(tmp_path):
    supervisor = Supervisor(tmp_path, prefix=("env", "A=1"))
    supervisor.start("sleeper", ["sleep", "1000"])
    assert json.loads((tmp_path / "processes" / "sleeper.json").read_text())["argv"] == ["env", "A=1", "sleep", "1000"]
    supervisor.stop()


def test_this_process_is_known_by_its_number():
    process = identify(1)
    assert process == Process(1, process.start_time)
    assert signal.SIGKILL not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
