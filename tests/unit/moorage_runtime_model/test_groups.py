"""Processes that compute one model, as the API process uses them: answers, and what happens when one is lost."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from moorage_runtime.engine.messages import Failed, Joined, SamplingParams, Shutdown, Started, Step, Submit

DEADLINE_S = 120
GREEDY = SamplingParams(temperature=0.0)
DRAWN = SamplingParams(temperature=1.0, seed=3, logprobs=2)
FLOAT32 = ("--dtype", "float32", "--context-length", "256", "--kv-tokens", "1024")


def asked(name="", count=5):
    """Greedy and drawn requests."""
    return [Submit(f"{name}{index}", [index + 3] * 9, 20, GREEDY if index % 2 else DRAWN) for index in range(count)]


@pytest.fixture(scope="module")
def free_port():
    def find():
        with socket.create_server(("127.0.0.1", 0)) as probe:
            return probe.getsockname()[1]

    return find


@pytest.fixture
def spawn_rank():
    """Start a rank of another pod, without an API process; all are killed at the end."""
    started = []

    def start(model, *arguments):
        command = [sys.executable, "-m", "moorage_runtime.model.process", "--model", str(model), *arguments]
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def expected(engine_processes, tmp_path_factory, small_model):
    """What one rank answers."""
    alone = engine_processes.EngineProcess(tmp_path_factory.mktemp("alone"), small_model, *FLOAT32)
    alone.until(Started)
    alone.send(*asked())
    answers, _ = alone.answers(5)
    alone.close()
    return answers


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_of_one_pod_answer_as_one_does(spawn, small_model, expected, ranks):
    engine = spawn(small_model, *FLOAT32, "--tensor-parallel", str(ranks), "--local-ranks", str(ranks))
    started = engine.until(Started)
    assert started.kernels.endswith(f"{ranks} ranks")
    assert (started.vocab_size, started.threads, started.kv_capacity_tokens) == (211, 1, 1024)
    engine.send(*asked())
    assert engine.answers(5)[0] == expected
    engine.send(Submit("alone", [4] * 9, 20, GREEDY))
    assert engine.answers(1)[0]["alone"] == expected["1"]
    engine.send(Shutdown())
    assert engine.exit_code() == 0


def test_ranks_of_several_pods_answer_as_one_does_and_end_together(spawn, write_model, free_port):
    """Two pods of two ranks: the first rank of each has an API process, which is told how it does."""
    model = write_model(wide=True)
    address = ("--tensor-parallel", "4", "--local-ranks", "2", "--leader-address", f"127.0.0.1:{free_port()}")
    second = spawn(model, *FLOAT32, *address, "--rank", "2")
    first = spawn(model, *FLOAT32, *address)
    alone = spawn(model, *FLOAT32)
    assert second.until(Joined) == Joined(2, 4)
    for engine in (first, alone):
        engine.until(Started)
        engine.send(*asked())
    assert first.answers(5)[0] == alone.answers(5)[0]
    first.send(Shutdown())
    assert (first.exit_code(), second.exit_code()) == (0, 0)


def test_the_kv_cache_is_measured_over_all_ranks(spawn, small_model):
    engine = spawn(small_model, "--context-length", "128", "--tensor-parallel", "2", "--local-ranks", "2")
    assert engine.until(Started).kv_capacity_tokens == 4 * 128


@pytest.fixture
def busy(spawn, small_model, engine_processes):
    """A group of three that computes a long answer, and its followers' processes."""
    engine = spawn(small_model, *FLOAT32, "--tensor-parallel", "3", "--local-ranks", "3")
    engine.until(Started)
    engine.send(Submit("long", [1], 200, GREEDY))
    engine.until(Step)
    followers = engine_processes.children(engine.process.pid)
    assert len(followers) == 2
    return engine, followers


@pytest.mark.parametrize(("which", "idle"), [(0, True), (1, False)])
def test_a_rank_that_is_killed_ends_the_group(spawn, small_model, engine_processes, which, idle):
    engine = spawn(small_model, *FLOAT32, "--tensor-parallel", "3", "--local-ranks", "3")
    engine.until(Started)
    followers = engine_processes.children(engine.process.pid)
    if not idle:
        engine.send(*(Submit(str(index), [1 + index], 200, GREEDY) for index in range(40)))
        engine.until(Step)
    os.kill(followers[which], signal.SIGKILL)
    failed = engine.until(Failed)
    assert failed.reason == "EngineFailed"
    assert f"rank {which + 1} is gone" in failed.message
    assert engine.exit_code() == 1
    engine_processes.until_ended(followers)


def test_followers_end_with_a_leader_that_is_killed(busy, engine_processes):
    engine, followers = busy
    engine.process.kill()
    engine_processes.until_ended(followers)


def test_a_rank_of_another_pod_ends_with_the_leader_and_says_why(spawn, spawn_rank, small_model, free_port):
    address = ("--tensor-parallel", "2", "--leader-address", f"127.0.0.1:{free_port()}")
    follower = spawn_rank(small_model, *FLOAT32, *address, "--rank", "1")
    leader = spawn(small_model, *FLOAT32, *address)
    leader.until(Started)
    leader.process.kill()
    _, said = follower.communicate(timeout=DEADLINE_S)
    assert follower.returncode == 1
    assert "rank 1: rank 0 is gone" in said


def test_a_rank_with_another_model_is_refused_and_the_right_one_joins(
    spawn, spawn_rank, small_model, write_model, free_port
):
    address = ("--tensor-parallel", "2", "--leader-address", f"127.0.0.1:{free_port()}")
    leader = spawn(small_model, *FLOAT32, *address)
    wrong = {
        "another model": spawn_rank(write_model(rope_theta=1e6), *FLOAT32, *address, "--rank", "1"),
        "asked for native, bfloat16": spawn_rank(small_model, *FLOAT32, "--dtype", "bfloat16", *address, "--rank", "1"),
        "a group of 3 ranks": spawn_rank(small_model, *FLOAT32, *address, "--tensor-parallel", "3", "--rank", "1"),
    }
    for why, process in wrong.items():
        _, said = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 1
        assert why in said
    right = spawn_rank(small_model, *FLOAT32, *address, "--rank", "1")
    leader.until(Started)
    leader.send(Shutdown())
    assert (leader.exit_code(), right.wait(DEADLINE_S)) == (0, 0)


def test_a_model_that_cannot_be_divided_is_refused(spawn, small_model):
    engine = spawn(small_model, *FLOAT32, "--tensor-parallel", "5", "--local-ranks", "5")
    failed = engine.until(Failed)
    assert failed.reason == "UnsupportedModel"
    assert "2 query heads of a KV head cannot be divided between 3 ranks; use fewer" in failed.message
    assert engine.exit_code() == 1
