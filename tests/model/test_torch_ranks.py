"""A model that the C++ kernels do not take, computed by torch on several ranks: processes that exchange by gloo."""

import json
import os
import signal

import pytest
from safetensors.torch import save_file

from moorage_runtime.engine.messages import Failed, SamplingParams, Shutdown, Started, Step, Submit

pytestmark = pytest.mark.model
FLOAT32 = ("--dtype", "float32", "--threads", "1", "--context-length", "256", "--kv-tokens", "1024")


@pytest.fixture(scope="module")
def unit(load_module, checkout):
    """What the unit tests of the model room share."""
    folder = checkout / "tests" / "unit" / "moorage_runtime_model"
    return load_module(folder / "processes.py"), load_module(folder / "conftest.py")


@pytest.fixture
def spawn(tmp_path, unit):
    processes, _ = unit
    with processes.spawning(tmp_path) as start:
        yield start


@pytest.fixture
def narrow_heads(tmp_path, unit):
    """Heads of 8 numbers."""
    _, small = unit
    (tmp_path / "config.json").write_text(json.dumps({**small.CONFIG, "head_dim": 8}))
    save_file(small.tensors(head_dim=8), tmp_path / "model.safetensors")
    return tmp_path


def test_ranks_answer_as_one_does_and_end_together(spawn, narrow_heads, unit):
    asked = [Submit(str(index), [index + 3] * 9, 20, SamplingParams(temperature=0.0)) for index in range(4)]
    alone, engine = (
        spawn(narrow_heads, *FLOAT32),
        spawn(narrow_heads, *FLOAT32, "--tensor-parallel", "3", "--local-ranks", "3"),
    )
    answers = []
    for each in (alone, engine):
        started = each.until(Started)
        assert started.kernels.startswith("torch-cpu")
        each.send(*asked)
        answers.append(each.answers(4)[0])
    assert answers[0] == answers[1]
    ranks = unit[0].children(engine.process.pid)
    engine.send(*(Submit(f"long{index}", [1 + index], 200, SamplingParams(temperature=0.0)) for index in range(40)))
    engine.until(Step)
    os.kill(ranks[0], signal.SIGKILL)
    assert engine.until(Failed) == Failed("EngineFailed", "rank 1 is gone")
    assert engine.exit_code() == 1
    unit[0].until_ended(ranks)
    alone.send(Shutdown())
    assert alone.exit_code() == 0
