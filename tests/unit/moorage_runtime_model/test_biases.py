"""Some models have biases, and some of them not everywhere."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from moorage_runtime.engine.core import Engine
from moorage_runtime.engine.messages import SamplingParams, Submit
from moorage_runtime.engine.plan import Limits
from moorage_runtime.model import native
from moorage_runtime.model.checkpoint import open_checkpoint
from moorage_runtime.model.torch_path.load import load as load_for_torch

QKV = [f"model.layers.1.self_attn.{part}_proj.bias" for part in "qkv"]


def load(checkpoint, kernels):
    if kernels == "torch":
        return load_for_torch(checkpoint, "cpu", "float32", lambda _done: None)
    assert native.refusal(checkpoint.config, "float32") is None
    return native.load(checkpoint, "float32", 1, lambda _done: None)


def first_token(folder, kernels):
    """The log-probability of the first token."""
    model = load(open_checkpoint(folder), kernels)
    limits = Limits(64, model.config.vocab_size, total_blocks=4, max_running=1, token_budget=64)
    engine = Engine(model.runner(limits), limits)
    engine.submit(Submit("a", list(range(20)), 1, SamplingParams(temperature=0.0, logprobs=0)))
    (output,) = engine.step().outputs
    return output.logprobs[0].chosen


@pytest.mark.parametrize("kernels", ["torch", "native"])
@pytest.mark.parametrize("missing", [[0], [1, 2]])
def test_a_bias_that_is_missing_adds_nothing_and_the_others_do(write_model, kernels, missing):
    folder = write_model()
    weights = load_file(folder / "model.safetensors")
    rows = [len(weights[name.replace("bias", "weight")]) for name in QKV]
    some = {
        name: torch.ones(count)
        for index, (name, count) in enumerate(zip(QKV, rows, strict=True))
        if index not in missing
    }
    found = []
    for biases in ({}, some, {name: torch.zeros(count) for name, count in zip(QKV, rows, strict=True)} | some):
        save_file(weights | biases, folder / "model.safetensors")
        found.append(first_token(folder, kernels))
    without, partly, filled = found
    assert partly == filled
    assert abs(partly - without) > 1e-3
