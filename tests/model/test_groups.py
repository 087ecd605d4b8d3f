"""Processes that compute one model, as the API process uses them: answers, and what happens when one is lost.

The real model for what they answer; a small one, which starts at once, for how they end.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file

from moorage_runtime.engine.messages import (
    Failed,
    FollowerLeaves,
    Joined,
    Leave,
    SamplingParams,
    Shutdown,
    Started,
    Step,
    Submit,
)

pytestmark = pytest.mark.model
DEADLINE_S = 240
FLOAT32 = ("--dtype", "float32", "--threads", "1", "--context-length", "256", "--kv-tokens", "1024")
MARGIN = 1e-3
"""Where the two best tokens are as near as this, the order of additions may decide, which depends on the ranks."""
NEW_TOKENS = 24
PROMPTS = [[9707, 11, 17], [1, 2, 3, 4, 5], [*range(300, 340)], [4093, 198, 1, 9690, 198], [28, 28, 28, 28] * 20]
GREEDY = SamplingParams(temperature=0.0)


@pytest.fixture(scope="module")
def unit(load_module, checkout):
    """What the unit tests of the model room share."""
    folder = checkout / "tests" / "unit" / "moorage_runtime_model"
    return load_module(folder / "processes.py"), load_module(folder / "conftest.py")


@pytest.fixture(scope="module")
def small_model(tmp_path_factory, unit):
    """A model of some thousand weights, of which four ranks find each a part."""
    _, small = unit
    folder = tmp_path_factory.mktemp("small")
    wide = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64}
    (folder / "config.json").write_text(json.dumps({**small.CONFIG, **wide}))
    save_file(small.tensors(256, 512, 64), folder / "model.safetensors")
    return folder


def spawning(folders, unit):
    """Start an engine's process; all are killed at the end."""
    started = []

    def start(model, *arguments):
        started.append(unit[0].EngineProcess(next(folders), model, *FLOAT32, *arguments))
        return started[-1]

    yield start
    for engine in started:
        engine.close()


@pytest.fixture
def spawn(tmp_path_factory, unit):
    yield from spawning(iter(lambda: tmp_path_factory.mktemp("socket"), None), unit)


@pytest.fixture(scope="module", autouse=True)
def stuck(tmp_path_factory, unit, small_model):
    """Two engines, one that computes and one that does not, whose other ranks stand still: with what each of them says.

    It takes them half a minute to notice, in which all other tests run.
    """
    with contextlib.contextmanager(spawning)(iter(lambda: tmp_path_factory.mktemp("stuck"), None), unit) as spawn:
        engines = idle, busy = [spawn(small_model, *in_one_pod(2)) for _ in range(2)]
        for engine in engines:
            engine.until(Started)
        keep_busy(busy)
        ranks = [*followers(idle, unit), *followers(busy, unit)]
        for rank in ranks:
            os.kill(rank, signal.SIGSTOP)
        yield idle, busy, ranks


@pytest.fixture
def spawn_rank():
    """Start a rank of another pod, without an API process; all are killed at the end."""
    started = []

    def start(model, *arguments):
        command = [sys.executable, "-m", "moorage_runtime.model.process", "--model", str(model), *FLOAT32, *arguments]
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def in_one_pod(ranks):
    return ("--tensor-parallel", str(ranks), "--local-ranks", str(ranks))


def over_pods(ranks, local=1):
    """For all pods the same, besides their first ranks."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    address = f"127.0.0.1:{port}"
    return ("--tensor-parallel", str(ranks), "--local-ranks", str(local), "--leader-address", address)


def followers(engine, unit):
    return unit[0].children(engine.process.pid)


def keep_busy(engine):
    engine.send(*(Submit(f"long{index}", [1 + index], 200, GREEDY) for index in range(40)))
    engine.until(Step)


def answers(engine, sampling):
    """{prompt: (tokens, margins of the two best ones, where log-probabilities were asked for)}."""
    engine.send(*(Submit(str(index), prompt, NEW_TOKENS, sampling) for index, prompt in enumerate(PROMPTS)))
    tokens, margins, left = [[] for _ in PROMPTS], [[] for _ in PROMPTS], len(PROMPTS)
    for event in engine.events():
        assert isinstance(event, Step), event
        for output in event.outputs:
            tokens[int(output.id)] += output.token_ids
            margins[int(output.id)] += [each.top[0][1] - each.top[1][1] for each in output.logprobs or []]
            left -= output.finish_reason is not None
        if not left:
            return list(zip(tokens, margins, strict=True))
    pytest.fail("the engine ended")


@pytest.fixture(scope="module")
def expected(tmp_path_factory, unit, smollm2_path):
    """What one rank answers, and how sure it is."""
    engine = unit[0].EngineProcess(tmp_path_factory.mktemp("alone"), smollm2_path, *FLOAT32)
    engine.until(Started)
    found = answers(engine, SamplingParams(temperature=0.0, logprobs=2))
    engine.close()
    return found


def assert_equal(found, expected):
    """Token for token, up to one that nobody can decide."""
    compared = 0
    for (tokens, _), (wanted, margins) in zip(found, expected, strict=True):
        for token, right, margin in zip(tokens, wanted, margins, strict=True):
            if token != right:
                assert margin <= MARGIN, f"{tokens} is not {wanted}"
                break
            compared += 1
    assert compared >= 0.9 * len(PROMPTS) * NEW_TOKENS


def mapped_models(pid):
    """Files with weights that a process has mapped: what it read of them would count as its memory."""
    return [line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if line.endswith(".gguf")]


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_of_one_pod_answer_as_one_does(spawn, unit, smollm2_path, expected, ranks):
    """Its 3 KV heads on 2 ranks are 2 and 1."""
    engine = spawn(smollm2_path, *in_one_pod(ranks))
    started = engine.until(Started)
    assert started.kernels.endswith(f"{ranks} ranks")
    assert (started.vocab_size, started.threads, started.kv_capacity_tokens) == (49152, 1, 1024)
    assert [mapped_models(pid) for pid in [engine.process.pid, *followers(engine, unit)]] == [[]] * ranks
    assert_equal(answers(engine, GREEDY), expected)
    engine.send(Shutdown())
    assert engine.exit_code() == 0


def test_ranks_of_two_pods_answer_as_one_does_and_end_together(spawn, smollm2_path, expected):
    address = over_pods(2)
    second = spawn(smollm2_path, *address, "--rank", "1")
    first = spawn(smollm2_path, *address)
    assert second.until(Joined) == Joined(1, 2)
    first.until(Started)
    assert not mapped_models(second.process.pid)
    assert_equal(answers(first, GREEDY), expected)
    first.send(Shutdown())
    assert (first.exit_code(), second.exit_code()) == (0, 0)


@pytest.mark.parametrize("busy", [False, True])
def test_a_rank_that_is_killed_ends_its_group(spawn, unit, small_model, busy):
    engine = spawn(small_model, *in_one_pod(3))
    engine.until(Started)
    if busy:
        keep_busy(engine)
    ranks = followers(engine, unit)
    os.kill(ranks[1], signal.SIGKILL)
    assert engine.until(Failed) == Failed("EngineFailed", "rank 2 is gone")
    assert engine.exit_code() == 1
    unit[0].until_ended(ranks)


def test_followers_end_with_a_leader_that_is_killed(spawn, unit, small_model):
    engine = spawn(small_model, *in_one_pod(2))
    engine.until(Started)
    keep_busy(engine)
    ranks = followers(engine, unit)
    engine.process.kill()
    unit[0].until_ended(ranks)


def test_a_pod_that_is_killed_is_named_by_the_others(spawn, spawn_rank, small_model):
    """Over sockets, where the survivors notice it by themselves."""
    address = over_pods(3)
    first, second = spawn(small_model, *address), spawn_rank(small_model, *address, "--rank", "1")
    third = spawn_rank(small_model, *address, "--rank", "2")
    first.until(Started)
    keep_busy(first)
    third.kill()
    assert first.until(Failed) == Failed("EngineFailed", "rank 2 is gone")
    _, said = second.communicate(timeout=DEADLINE_S)
    assert (first.exit_code(), second.returncode) == (1, 1)
    assert "rank 2 is gone" in said


def test_pods_of_two_ranks_say_who_leaves_and_who_is_lost(spawn, unit, small_model):
    address = over_pods(4, local=2)
    second = spawn(small_model, *address, "--rank", "2")
    first = spawn(small_model, *address)
    assert second.until(Joined) == Joined(2, 4)
    first.until(Started)
    second.send(Leave())
    assert first.until(FollowerLeaves) == FollowerLeaves(2)
    keep_busy(first)
    (sibling,) = followers(second, unit)
    os.kill(sibling, signal.SIGKILL)
    assert "rank 3" in first.until(Failed).message
    assert "rank 3" in second.until(Failed).message
    assert (first.exit_code(), second.exit_code()) == (1, 1)


def test_a_rank_with_another_model_is_refused_and_the_right_one_ends_with_its_leader(
    spawn, spawn_rank, small_model, tmp_path
):
    address = over_pods(2)
    leader = spawn(small_model, *address)
    another = tmp_path / "another"
    another.mkdir()
    config = json.loads((small_model / "config.json").read_text())
    (another / "config.json").write_text(json.dumps(config | {"rope_theta": 1e6}))
    (another / "model.safetensors").symlink_to(small_model / "model.safetensors")
    wrong = spawn_rank(another, *address, "--rank", "1")
    _, said = wrong.communicate(timeout=DEADLINE_S)
    assert (wrong.returncode, "it has another model than the leader" in said) == (1, True)
    right = spawn_rank(small_model, *address, "--rank", "1")
    leader.until(Started)
    leader.process.kill()
    _, said = right.communicate(timeout=DEADLINE_S)
    assert right.returncode == 1
    assert "rank 1: rank 0 is gone" in said


def test_a_rank_that_is_stuck_ends_its_group(stuck, unit):
    """The last one here, see `stuck`."""
    idle, busy, ranks = stuck
    assert busy.until(Failed).message == "rank 1 did not come to an exchange in time"
    assert idle.until(Failed).message == "rank 1 has not answered for 30 s"
    assert (busy.exit_code(), idle.exit_code()) == (1, 1)
    unit[0].until_ended(ranks)
