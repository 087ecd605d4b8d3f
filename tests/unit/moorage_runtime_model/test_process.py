"""The engine's process through its socket, as the API process uses it."""

import signal
import subprocess
import sys

import msgspec
import pytest

from moorage_runtime.engine.messages import (
    Cancel,
    Failed,
    Loading,
    SamplingParams,
    Shutdown,
    Started,
    Submit,
)

DEADLINE_S = 120
GREEDY = SamplingParams(temperature=0.0)
NOT_SUPPORTED = "is not supported; supported are llama, mistral, qwen2, qwen3"


def test_a_life_load_answer_cancel_end(spawn, small_model):
    engine = spawn(small_model, "--context-length", "128", "--dtype", "float32", "--threads", "1")
    events = []
    for event in engine.events():
        events.append(event)
        if isinstance(event, Started):
            break
    assert {event.phase for event in events[:-1]} == {"LoadingWeights", "WarmingUp"}
    assert all(isinstance(event, Loading) and 0 <= event.fraction <= 1 for event in events[:-1])
    started = events[-1]
    assert (started.architecture, started.vocab_size, started.context_length) == ("llama", 211, 128)
    assert (started.dtype, started.threads, started.eos_token_ids) == ("float32", 1, [2])
    assert (started.max_running, started.kv_capacity_tokens) == (4, 4 * 128)

    engine.send(*(Submit(str(index), [index + 3] * 9, 12, GREEDY) for index in range(6)))
    batched, stats = engine.answers(6)
    assert {(len(tokens), reason) for tokens, reason, _ in batched.values()} == {(12, "length")}
    assert (stats.running, stats.waiting, stats.kv_utilization, stats.tokens_per_second) == (0, 0, 0.0, 0.0)
    engine.send(Submit("alone", [5] * 9, 12, GREEDY))
    assert engine.answers(1)[0]["alone"] == batched["2"]

    engine.send(Submit("bad", [211], 1), Submit("gone", [1], 100, GREEDY), Cancel("gone"), Cancel("never"))
    ends, _ = engine.answers(2)
    assert ends["bad"] == ([], "error", "the prompt has a token id outside of the vocabulary (0 to 210)")
    assert ends["gone"][1] == "abort"

    engine.send(Shutdown())
    assert engine.exit_code() == 0


def test_requests_without_a_seed_differ(spawn, small_model):
    engine = spawn(small_model, "--kv-tokens", "512")
    engine.until(Started)
    engine.send(*(Submit(name, [1, 2, 3], 40, SamplingParams(temperature=2.0)) for name in "ab"))
    ends, _ = engine.answers(2)
    assert ends["a"][0] != ends["b"][0]


def test_shutdown_aborts_what_runs(spawn, small_model):
    engine = spawn(small_model, "--kv-tokens", "512")
    started = engine.until(Started)
    assert started.kv_capacity_tokens == 512
    engine.send(*(Submit(str(index), [1], 200, GREEDY) for index in range(6)), Shutdown())
    ends, _ = engine.answers(6)
    assert {reason for _, reason, _ in ends.values()} == {"abort"}
    assert engine.exit_code() == 0


@pytest.mark.parametrize(
    ("config", "arguments", "expected"),
    [
        ({"model_type": "gpt2"}, [], Failed("UnsupportedModel", f"architecture 'gpt2' {NOT_SUPPORTED}")),
        (
            {},
            ["--kv-tokens", "64"],
            Failed(
                "InsufficientMemory",
                "a KV cache of 64 tokens (--kv-tokens) does not hold contextLength 256; raise the one, or lower the "
                "other (--context-length)",
            ),
        ),
    ],
)
def test_a_start_that_cannot_succeed_says_why_and_ends_with_1(spawn, write_model, config, arguments, expected):
    engine = spawn(write_model(**config), *arguments)
    assert engine.until(Failed) == expected
    assert engine.exit_code() == 1


def test_a_frame_that_is_no_protocol_ends_the_engine_with_the_reason(spawn, small_model):
    engine = spawn(small_model, "--kv-tokens", "256")
    engine.until(Started)
    engine.socket.send(b"nonsense")
    failed = engine.until(Failed)
    assert failed.reason == "EngineFailed"
    assert failed.message.startswith(f"{msgspec.DecodeError.__name__}") or "Error" in failed.message
    assert engine.exit_code() == 1


PARENT = """
import subprocess, sys, zmq
from moorage_runtime.engine.messages import Failed, Started, decode_events
folder, deadline, *command = sys.argv[1:]
socket = zmq.Context().socket(zmq.PAIR)
socket.bind(f"ipc://{folder}/engine.sock")
engine = subprocess.Popen([*command, "--socket", f"ipc://{folder}/engine.sock"])
event = None
while not isinstance(event, Started | Failed):
    if not socket.poll(int(deadline) * 1000):
        sys.exit("the engine said nothing")
    event = decode_events(socket.recv())[-1]
if isinstance(event, Failed):
    sys.exit(event.message)
print(engine.pid, flush=True)
sys.stdin.read()
"""


def test_the_engine_dies_with_the_process_that_started_it(tmp_path, small_model, engine_processes):
    command = [sys.executable, "-m", "moorage_runtime.model.process", "--model", str(small_model), "--max-running", "1"]
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), str(DEADLINE_S), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        said = parent.stdout.readline()
        assert said, "the engine did not start; its parent says why on standard error"
        engine = int(said)
        parent.send_signal(signal.SIGKILL)
        parent.wait(DEADLINE_S)
    engine_processes.until_ended([engine])
