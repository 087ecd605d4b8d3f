"""The frames between the API process and the engine process."""

import subprocess
import sys

import msgspec
import pytest

from moorage_runtime.engine.messages import (
    Cancel,
    Failed,
    Loading,
    Output,
    SamplingParams,
    Shutdown,
    Stats,
    Step,
    Submit,
    TokenLogprobs,
    decode_commands,
    decode_events,
    encode_commands,
    encode_events,
)


def test_commands_survive_the_wire():
    commands = [
        Submit("a", [1, 2], 5, SamplingParams(seed=2**63 - 1, logit_bias={3: -1.5}, logprobs=2), [2], priority=-1),
        Cancel("a"),
        Shutdown(),
    ]
    assert decode_commands(encode_commands(commands)) == commands


def test_events_survive_the_wire():
    stats = Stats(1, 2, 0.5, 10.0, 0.1, 3, 1, 0)
    events = [
        Loading("WarmingUp", 0.5, "measuring"),
        Failed("EngineFailed", "why"),
        Step([Output("a", [7], [TokenLogprobs(-0.5, [(7, -0.5)])], "stop", 16)], stats),
    ]
    assert decode_events(encode_events(events)) == events


@pytest.mark.parametrize("frame", [b"", b"\x91\x91\xa4what", b"\x91\x92\xa6cancel\x01"])
def test_what_is_none_of_the_protocol_is_refused(frame):
    with pytest.raises(msgspec.DecodeError):
        decode_commands(frame)


def test_the_protocol_loads_neither_torch_nor_a_web_framework():
    """Both processes import it; the API process must never carry torch."""
    program = (
        "import sys, moorage_runtime.engine.messages\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'torch', 'fastapi', 'zmq', 'numpy'}))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
