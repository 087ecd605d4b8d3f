"""Every format of matrices that GGUF files have is computed, and gives what the model with dequantised weights gives.

The kernels round activations to 8 bits in groups, so their logits are near those of float32, not equal. How near is the
claim: the mean distance, against the spread of the logits themselves.
"""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from moorage_runtime.engine.messages import MAX_LOGPROBS, SamplingParams, Submit
from moorage_runtime.formats.layout import FORMATS
from moorage_runtime.model.checkpoint import open_checkpoint
from tests.gguf_models import random_blocks, write_gguf

pytestmark = pytest.mark.model

VOCABULARY = MAX_LOGPROBS
"""So few that log-probabilities of all tokens can be asked for."""
PROMPTS = [[(5 * at + 3 * index) % VOCABULARY for at in range(3 + 4 * index)] for index in range(12)]
QUANTIZED = [name for name, form in FORMATS.items() if form.block > 1]
NEAR = 0.1
"""As `distance` measures; 0.01 to 0.06 were seen."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two layers, with rows of whole blocks of 256 as the K-quants have them."""
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    path = tmp_path_factory.mktemp("wide")
    model.save_pretrained(path)
    return path


def weights(folder):
    return load_file(folder / "model.safetensors")


def logprobs(room):
    """(prompts, vocabulary): of the token after each prompt."""
    asked = SamplingParams(temperature=0.0, logprobs=VOCABULARY)
    answers, _ = room.answer([Submit(str(index), prompt, 1, asked) for index, prompt in enumerate(PROMPTS)])
    tops = [dict(answers[str(index)].logprobs[0].top) for index in range(len(PROMPTS))]
    return np.array([[top[token] for token in range(VOCABULARY)] for top in tops])


def distance(ours, theirs):
    """Mean distance, as a share of the spread that tokens have."""
    return np.abs(ours - theirs).mean() / theirs.std(axis=1).mean()


@pytest.mark.parametrize("name", QUANTIZED)
def test_a_gguf_of_every_format_computes_what_its_dequantised_weights_do(room, folder, tmp_path, name):
    path = write_gguf(tmp_path / "m.gguf", open_checkpoint(folder), pack=random_blocks(name))
    native, exact = room(path, "native", None), room(path, "torch")
    assert name in native.model.kernels
    assert distance(logprobs(native), logprobs(exact)) < NEAR


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_safetensors_of_every_type_compute_what_they_do_in_float32(room, folder, tmp_path, dtype):
    save_file({name: tensor.to(dtype) for name, tensor in weights(folder).items()}, tmp_path / "model.safetensors")
    shutil.copy(folder / "config.json", tmp_path)
    native, exact = room(tmp_path, "native", None), room(tmp_path, "torch")
    assert native.model.dtype == ("float32" if dtype == torch.float32 else "bfloat16")
    assert distance(logprobs(native), logprobs(exact)) < (1e-5 if dtype == torch.float32 else NEAR)


@pytest.mark.parametrize(("quantization", "far"), [("Int8", 0.15), ("Int4", 0.7)])
def test_quantised_at_load_both_ways_compute_the_same_weights(room, folder, quantization, far):
    native, torch_ = (logprobs(room(folder, how, None, quantization)) for how in ("native", "torch"))
    assert distance(native, torch_) < NEAR
    whole = logprobs(room(folder, "torch"))
    assert 0 < distance(logprobs(room(folder, "torch", "float32", quantization)), whole) < far


def test_the_distance_tells_other_weights(room, folder, tmp_path):
    """What `NEAR` is measured with can fail: one layer's weights in another order are far away."""
    other = weights(folder)
    name = "model.layers.1.mlp.down_proj.weight"
    other[name] = other[name].flip(1).contiguous()
    save_file(other, tmp_path / "model.safetensors")
    shutil.copy(folder / "config.json", tmp_path)
    assert distance(logprobs(room(tmp_path, "torch")), logprobs(room(folder, "torch"))) > 3 * NEAR
