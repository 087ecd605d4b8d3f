"""The real model on several ranks, served as in pods: answers, probes, signals, and what a lost rank looks like."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.model
# Generous: two cores may be shared with a whole cluster.
DEADLINE = 300
HARBOUR = {"model": "chat", "prompt": "A harbour is", "temperature": 0, "max_tokens": 16}
LONG = {**HARBOUR, "max_tokens": 120, "ignore_eos": True, "stream": True}


class Pod:
    """A server process, with a port of its own from its start on."""

    def __init__(self, folder, model, *arguments, **environment):
        folder.mkdir()
        self.termination, self.log = folder / "termination", folder / "log"
        self.termination.touch()
        self.port = free_port()
        command = [sys.executable, "-m", "moorage_runtime.server.main", "serve", str(model), "--served-name", "chat"]
        command += ["--port", str(self.port), "--host", "127.0.0.1", "--context-length", "512", "--max-running", "4"]
        command += ["--termination-log", str(self.termination), *arguments]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **environment})

    def get(self, path, body=None):
        """Status and JSON."""
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", data, DEADLINE) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def stream(self):
        """An answer that goes on for a while, of which something has come."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/v1/completions", json.dumps(LONG).encode())
        response = urllib.request.urlopen(request, timeout=DEADLINE)
        assert response.readline().startswith(b"data: ")
        return response

    def until(self, path, wanted):
        deadline = time.monotonic() + DEADLINE
        while True:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            try:
                if wanted(*self.get(path)):
                    return self
            except urllib.error.URLError:
                pass  # it does not listen yet
            time.sleep(0.1)

    def until_ready(self):
        return self.until("/readyz", lambda status, _body: status == 200)

    def processes(self):
        """The engine's and those of its further ranks."""
        (engine,) = children(self.process.pid)
        return [engine, *children(engine)]

    def said(self):
        """Exit code and termination message."""
        code = self.process.wait(DEADLINE)
        text = self.termination.read_text()
        return code, json.loads(text) if text else None

    def end(self):
        self.process.kill()
        self.process.wait()


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@pytest.fixture
def pods(tmp_path, smollm2_path):
    started = []

    def start(*arguments, **environment):
        started.append(Pod(tmp_path / str(len(started)), smollm2_path, *arguments, **environment))
        return started[-1]

    yield start
    for pod in started:
        pod.end()


@pytest.fixture
def two_pods(pods):
    """Leader and follower, as LeaderWorkerSet starts them; the follower first."""
    address = f"127.0.0.1:{free_port()}"

    def start(index):
        names = {"LWS_GROUP_SIZE": "2", "LWS_WORKER_INDEX": str(index), "LWS_LEADER_ADDRESS": address}
        return pods("--tensor-parallel", "2", **names)

    follower = start(1)
    follower.until("/readyz", lambda status, body: (status, body["reason"]) == (503, "WaitingForRanks"))
    return start(0).until_ready(), follower.until_ready()


def test_ranks_of_one_pod_answer_and_a_killed_one_ends_the_pod(pods):
    pod = pods("--tensor-parallel", "3").until_ready()
    status, answer = pod.get("/v1/completions", HARBOUR)
    assert status == 200
    assert re.search(r"\b(sea|ship|boat|water|port)", answer["choices"][0]["text"])
    assert pod.get("/telemetry")[1]["kernels"].endswith(", 3 ranks")
    engine, *followers = pod.processes()
    assert len(followers) == 2
    with pod.stream() as open_stream:
        os.kill(followers[1], signal.SIGKILL)
        rest = open_stream.read().decode()
    assert "[DONE]" not in rest
    assert "rank 2 is gone" in json.loads(rest.strip().splitlines()[-1].removeprefix("data: "))["error"]["message"]
    assert pod.said() == (1, {"reason": "EngineFailed", "error": "rank 2 is gone"})
    assert not any(Path(f"/proc/{pid}").exists() for pid in (engine, followers[0]))


def test_pods_join_and_end_together_after_what_runs(two_pods):
    leader, follower = two_pods
    assert leader.get("/v1/completions", HARBOUR)[0] == 200
    status, refusal = follower.get("/v1/completions", HARBOUR)
    assert (status, refusal["error"]["code"]) == (503, "Joined")
    assert refusal["error"]["message"] == "This is rank 1 of 2: rank 0 takes the requests."
    assert follower.get("/telemetry")[1]["phase"] == "Joined"
    with leader.stream() as open_stream:
        for pod in (follower, leader):
            pod.process.send_signal(signal.SIGTERM)
        rest = open_stream.read().decode()
    assert rest.strip().endswith("data: [DONE]")
    assert (leader.said(), follower.said()) == ((0, None), (0, None))


def test_a_pod_that_lost_its_leader_says_so(two_pods):
    leader, follower = two_pods
    engine, *_ = leader.processes()
    os.kill(engine, signal.SIGKILL)
    code, said = follower.said()
    assert code == 1
    assert "rank 0 is gone" in said["error"]
    assert leader.said()[0] == 1


def test_a_follower_that_has_not_joined_ends_at_once(pods):
    names = {"LWS_GROUP_SIZE": "2", "LWS_WORKER_INDEX": "1", "LWS_LEADER_ADDRESS": f"127.0.0.1:{free_port()}"}
    pod = pods("--tensor-parallel", "2", **names)
    pod.until("/readyz", lambda status, body: (status, body["reason"]) == (503, "WaitingForRanks"))
    pod.process.send_signal(signal.SIGTERM)
    assert pod.said() == (0, None)


def test_a_follower_that_is_told_to_end_lets_its_leader_finish(two_pods):
    """As where a node is drained: nobody has told the leader's pod anything."""
    leader, follower = two_pods
    with leader.stream() as open_stream:
        follower.process.send_signal(signal.SIGTERM)
        rest = open_stream.read().decode()
    assert rest.strip().endswith("data: [DONE]")
    assert (leader.said(), follower.said()) == ((0, None), (0, None))
    assert "rank 1 was told to stop, and with it all ranks of its group" in leader.log.read_text()
