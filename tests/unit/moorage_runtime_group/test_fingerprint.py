"""What tells models apart without reading all of them."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from moorage_runtime.group.fingerprint import Fingerprint, fingerprint
from moorage_runtime.model.checkpoint import open_checkpoint
from tests.gguf_models import write_gguf

SHAPES = {
    "model.embed_tokens.weight": (64, 32),
    "model.norm.weight": (32,),
    "model.layers.0.input_layernorm.weight": (32,),
    "model.layers.0.post_attention_layernorm.weight": (32,),
    "model.layers.0.mlp.gate_proj.weight": (4096, 32),
    "model.layers.0.mlp.up_proj.weight": (4096, 32),
    "model.layers.0.mlp.down_proj.weight": (32, 4096),
    **{f"model.layers.0.self_attn.{name}_proj.weight": (32, 32) for name in "qkvo"},
}
CONFIG = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 4096,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}


@pytest.fixture
def write(tmp_path):
    """A model in a folder of its own, changed by a test."""

    def one(change=lambda _tensors, _config: None, digest=None):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        random = np.random.default_rng(1)
        tensors = {name: random.standard_normal(shape, np.float32) for name, shape in SHAPES.items()}
        config = dict(CONFIG)
        change(tensors, config)
        save_file(tensors, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(config))
        if digest is not None:
            (folder / ".moorage.json").write_text(digest)
        return folder

    return one


def test_the_same_model_is_the_same_wherever_it_lies(write):
    one, other = fingerprint(write()), fingerprint(write())
    assert one == other
    assert one.digest == ""


def a_norm(tensors, _config):
    tensors["model.layers.0.input_layernorm.weight"] *= 1.01


def one_matrix(tensors, _config):
    tensors["model.layers.0.mlp.up_proj.weight"] *= 1.01


def more_tokens(tensors, config):
    tensors["model.embed_tokens.weight"] = np.concatenate([tensors["model.embed_tokens.weight"]] * 2)
    config["vocab_size"] = 128


def another_config(_tensors, config):
    config["rope_theta"] = 1e6


def another_type(tensors, _config):
    tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(np.float16)


@pytest.mark.parametrize("change", [a_norm, one_matrix, more_tokens, another_config, another_type])
def test_whatever_was_trained_or_changed_makes_another_one(write, change):
    """Tensors of which no file of a large model would show much."""
    assert not fingerprint(write(change)).may_be(fingerprint(write()))


def test_what_the_fetch_verified_is_told_and_missing_on_one_side_no_difference(write):
    known, unknown = fingerprint(write(digest='{"digest": "sha256:1"}')), fingerprint(write())
    assert known == Fingerprint(unknown.sample, "sha256:1")
    assert known.may_be(unknown)
    assert unknown.may_be(known)
    assert not known.may_be(fingerprint(write(digest='{"digest": "sha256:2"}')))


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"digest": 7}'])
def test_a_marker_that_tells_no_digest_is_none(write, text):
    assert fingerprint(write(digest=text)).digest == ""


def test_a_gguf_file_is_told_apart_too_and_its_folder_is_the_same(write, tmp_path):
    paths = []
    for change in (lambda _tensors, _config: None, one_matrix):
        folder = tmp_path / f"gguf{len(paths)}"
        folder.mkdir()
        paths.append(write_gguf(folder / "model.gguf", open_checkpoint(write(change))))
    one, other = map(fingerprint, paths)
    assert not one.may_be(other)
    assert fingerprint(paths[0].parent) == one
