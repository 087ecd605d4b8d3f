"""Reading models: both formats give the same numbers, and what is unsafe or unsupported is refused with the reason."""

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from moorage_runtime.formats.layout import FORMATS, Layout
from moorage_runtime.model.checkpoint import ROPE_FACTORS, open_checkpoint
from moorage_runtime.model.config import Llama3Scaling
from moorage_runtime.model.errors import UnsupportedModelError
from moorage_runtime.model.quantized import QuantizedCheckpoint
from moorage_runtime.model.rotary import inverse_frequencies
from tests.gguf_models import quantized, random_blocks, write_gguf

PARTS = (
    "input_layernorm",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.down_proj",
)


@pytest.fixture
def source(small_model):
    return open_checkpoint(small_model)


def test_a_gguf_is_the_model_that_it_was_made_from(source, tmp_path):
    read = open_checkpoint(write_gguf(tmp_path / "m.gguf", source))
    assert read.config.rms_eps == pytest.approx(source.config.rms_eps)
    for field in ("hidden_size", "layers", "heads", "kv_heads", "head_dim", "vocab_size", "rope", "context_length"):
        assert getattr(read.config, field) == getattr(source.config, field)
    assert read.config.tied_embeddings
    assert read.config.eos_token_ids == (2,)
    for part in PARTS:
        name = f"model.layers.1.{part}.weight"
        assert torch.equal(read.tensor(name), source.tensor(name)), name


def test_other_architectures_are_not_permuted(source, tmp_path):
    read = open_checkpoint(write_gguf(tmp_path / "m.gguf", source, architecture="qwen2"))
    name = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(read.tensor(name), source.tensor(name))


def test_a_gguf_in_a_folder_is_found_and_two_are_not_guessed_between(source, tmp_path):
    write_gguf(tmp_path / "a.gguf", source)
    assert open_checkpoint(tmp_path).config.layers == source.config.layers
    write_gguf(tmp_path / "b.gguf", source)
    with pytest.raises(UnsupportedModelError, match=r"2 GGUF files: a\.gguf, b\.gguf"):
        open_checkpoint(tmp_path)


def test_rope_factors_of_a_gguf_are_the_scaling_of_its_source(write_model, tmp_path):
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    source = open_checkpoint(write_model(rope_scaling={"rope_type": "llama3", **scaling}))
    read = open_checkpoint(write_gguf(tmp_path / "m.gguf", source))
    scaled = inverse_frequencies(read.config.rope, read.config.head_dim, read.optional(ROPE_FACTORS).numpy())
    assert np.allclose(scaled, inverse_frequencies(source.config.rope, source.config.head_dim))
    assert not np.allclose(scaled, inverse_frequencies(read.config.rope, read.config.head_dim))


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"rope_dimension_count": 8}, "rotary embedding of 8 of 16 numbers is not supported"),
        ({"head_count": 0}, r"m\.gguf: its metadata cannot be read: integer .*zero"),
        ({"head_count_kv": 0}, "the model's kv_heads is 0"),
        ({"layer_norm_rms_eps": float("nan")}, "rms_eps nan or .* cannot be computed with"),
        ({"rope_freq_base": float("-inf")}, "cannot be computed with"),
        ({"rope_scaling_type": gguf.RopeScalingType.YARN}, "rope scaling 'yarn' is not supported in GGUF"),
    ],
)
def test_variants_of_a_gguf_that_are_not_computed_are_refused(source, tmp_path, metadata, reason):
    with pytest.raises(UnsupportedModelError, match=reason):
        open_checkpoint(write_gguf(tmp_path / "m.gguf", source, **metadata))


def test_a_gguf_of_another_architecture_is_refused(source, tmp_path):
    with pytest.raises(UnsupportedModelError, match="architecture 'gpt2' is not supported; supported are llama"):
        open_checkpoint(write_gguf(tmp_path / "m.gguf", source, architecture="gpt2"))


def test_a_broken_gguf_is_refused(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(UnsupportedModelError, match=r"m\.gguf cannot be read as GGUF"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "gpt2"}, "architecture 'gpt2' is not supported; supported are llama, mistral, qwen2, qwen3"),
        ({"auto_map": {"AutoModel": "x.Y"}}, r"the model's own code \(auto_map\), which is never run"),
        ({"hidden_act": "gelu"}, "activation 'gelu' is not supported"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope scaling 'dynamic' is not supported"),
        ({"partial_rotary_factor": 0.5}, "rotary embedding of a part of each head is not supported"),
        ({"rms_norm_eps": "small"}, "config.json cannot be read: ValueError"),
        ({"hidden_size": None}, "config.json cannot be read: TypeError"),
        ({"rope_parameters": [1]}, "config.json cannot be read: AttributeError"),
        ({"eos_token_id": ["</s>"]}, "config.json cannot be read: ValueError .* neither a token id nor a list of them"),
        ({"num_attention_heads": 0}, "config.json cannot be read: ZeroDivisionError"),
        ({"num_attention_heads": -4}, "the model's heads is -4"),
        ({"num_key_value_heads": 3}, "4 query heads do not share 3 key heads evenly"),
        ({"num_hidden_layers": 10**6}, "the model has 1000000 layers; at most 1024 are computed"),
        ({"vocab_size": 10**18}, "the model's vocab_size is 1000000000000000000"),
        ({"head_dim": 15}, "heads of 15 numbers have no pairs to rotate"),
        ({"rms_norm_eps": -1}, "rms_eps -1 or .* cannot be computed with"),
        ({"rope_theta": -1}, "cannot be computed with"),
        ({"max_position_embeddings": 0}, "the model's context_length is 0"),
    ],
)
def test_a_config_that_is_not_computed_is_refused(write_model, config, reason):
    with pytest.raises(UnsupportedModelError, match=reason):
        open_checkpoint(write_model(**config))


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "neither .safetensors nor .gguf"),
        ({"pytorch_model.bin": b"x"}, r"pytorch_model\.bin is a pickle.*convert the model to safetensors"),
        ({"model.safetensors": b"x" * 64, "config.json": b"{"}, r"config\.json cannot be read"),
        ({"model.safetensors": b"x" * 64, "modeling.py": b""}, r"brings code \(modeling\.py\), which is never run"),
    ],
)
def test_a_folder_without_a_safe_model_is_refused(tmp_path, files, reason):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UnsupportedModelError, match=reason):
        open_checkpoint(tmp_path)


def test_a_broken_safetensors_file_is_refused(write_model):
    folder = write_model()
    (folder / "model.safetensors").write_bytes(b"x" * 64)
    with pytest.raises(UnsupportedModelError, match=r"model\.safetensors cannot be read"):
        open_checkpoint(folder)


def test_a_missing_tensor_is_named(write_model):
    with pytest.raises(UnsupportedModelError, match=r"no tensor 'lm_head\.weight'"):
        open_checkpoint(write_model()).tensor("lm_head.weight")


def test_there_must_be_a_model(tmp_path):
    with pytest.raises(UnsupportedModelError, match="there is no model at"):
        open_checkpoint(tmp_path / "nothing")


def test_the_context_ends_where_a_sliding_window_would_begin_to_act(write_model):
    assert open_checkpoint(write_model(sliding_window=100)).config.context_length == 100
    assert open_checkpoint(write_model(sliding_window=100, use_sliding_window=False)).config.context_length == 256


def test_end_tokens_come_from_the_generation_config_first(write_model):
    folder = write_model()
    assert open_checkpoint(folder).config.eos_token_ids == (2,)
    (folder / "generation_config.json").write_text('{"eos_token_id": [5, 6]}')
    assert open_checkpoint(folder).config.eos_token_ids == (5, 6)


def test_rope_scaling_is_read_in_both_spellings(write_model):
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    old = open_checkpoint(write_model(rope_theta=5e5, rope_scaling={"rope_type": "llama3", **scaling})).config.rope
    new = {"rope_type": "llama3", "rope_theta": 5e5, **scaling}
    assert old == open_checkpoint(write_model(rope_theta=None, rope_parameters=new)).config.rope
    assert (old.theta, old.llama3) == (5e5, Llama3Scaling(8.0, 1.0, 4.0, 64))


def bits(checkpoint, name):
    stored = checkpoint.stored(name)
    return stored.format, stored.rows, stored.columns, stored.data.tobytes()


def test_a_gguf_is_stored_in_its_own_blocks_with_rows_in_order(source, tmp_path):
    read = open_checkpoint(write_gguf(tmp_path / "m.gguf", source, pack=quantized("Q4_1")))
    for part in PARTS:
        name = f"model.layers.1.{part}.weight"
        values = source.tensor(name).numpy()
        if values.ndim == 1:
            assert bits(read, name) == ("F32", 1, len(values), values.tobytes())
        else:
            blocks = gguf.quantize(values, gguf.GGMLQuantizationType.Q4_1)
            assert bits(read, name) == ("Q4_1", *values.shape, blocks.tobytes()), name
    assert read.stored("lm_head.weight") is None


def test_biases_of_rotated_rows_are_put_in_order_with_them(write_model, tmp_path):
    folder, name = write_model(), "model.layers.0.self_attn.q_proj.bias"
    save_file({**load_file(folder / "model.safetensors"), name: torch.arange(64.0)}, folder / "model.safetensors")
    read = open_checkpoint(write_gguf(tmp_path / "m.gguf", open_checkpoint(folder)))
    assert torch.equal(read.tensor(name), torch.arange(64.0))


@pytest.mark.parametrize(
    ("dtype", "stored"), [(torch.float32, "F32"), (torch.bfloat16, "BF16"), (torch.float16, "F16")]
)
def test_safetensors_are_stored_as_they_are_and_vectors_as_float32(write_model, dtype, stored):
    folder = write_model()
    weights = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
    names = sorted(weights)
    save_file({name: weights[name] for name in names[:5]}, folder / "model-1.safetensors")
    save_file({name: weights[name] for name in names[5:]}, folder / "model-2.safetensors")
    (folder / "model.safetensors").unlink()
    read = open_checkpoint(folder)
    for name, tensor in weights.items():
        if tensor.dim() == 1:
            assert bits(read, name) == ("F32", 1, len(tensor), tensor.float().numpy().tobytes())
            assert torch.equal(read.tensor(name), tensor.float())
        else:
            assert bits(read, name) == (stored, *tensor.shape, tensor.contiguous().view(torch.uint8).numpy().tobytes())
            assert torch.equal(read.tensor(name), tensor)


@pytest.mark.parametrize(("quantization", "layers"), [("Int8", "Q8_0"), ("Int4", "Q4_1")])
def test_matrices_are_rounded_as_they_are_loaded(small_model, source, quantization, layers):
    read = open_checkpoint(small_model, quantization)
    name = "model.layers.0.mlp.down_proj.weight"
    assert read.stored(name).format == layers
    assert read.stored("model.embed_tokens.weight").format == "Q8_0"
    assert bits(read, "model.norm.weight") == bits(source, "model.norm.weight")
    assert bits(read, name) == bits(open_checkpoint(small_model, quantization), name)
    assert read.layout(name) == Layout(layers, 64, 96)
    assert read.layout("model.norm.weight") == Layout("F32", 1, 64)
    worst = (read.tensor(name) - source.tensor(name)).abs().max()
    assert 0 < worst < {"Int8": 0.005, "Int4": 0.06}[quantization]


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if form.block > 1])
def test_blocks_of_every_format_are_the_numbers_that_the_reference_makes_of_them(write_model, tmp_path, name):
    source = open_checkpoint(write_model(wide=True))
    path = write_gguf(tmp_path / "m.gguf", source, pack=random_blocks(name))
    read, written = open_checkpoint(path), {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    for ours, theirs in (("mlp.up_proj", "blk.1.ffn_up.weight"), ("self_attn.o_proj", "blk.1.attn_output.weight")):
        expected = gguf.dequantize(written[theirs].data, written[theirs].tensor_type)
        tensor = read.tensor(f"model.layers.1.{ours}.weight")
        assert np.array_equal(tensor.numpy(), expected)
        assert read.stored(f"model.layers.1.{ours}.weight").format == name
        assert 0.2 < tensor.abs().max() < 0.4


def test_rounding_a_gguf_is_for_those_that_are_not_rounded_yet(source, tmp_path):
    plain = open_checkpoint(write_gguf(tmp_path / "plain.gguf", source), "Int8")
    name = "model.layers.0.self_attn.q_proj.weight"
    assert bits(plain, name) == bits(QuantizedCheckpoint(source, "Int8"), name)
    rounded = open_checkpoint(write_gguf(tmp_path / "r.gguf", source, pack=quantized("Q8_0")), "Int8")
    with pytest.raises(UnsupportedModelError, match=r"Int8 is for .* not quantised yet; .* is Q8_0 already"):
        rounded.stored(name)


def test_a_tensor_that_cannot_be_rounded_is_named(write_model):
    folder = write_model()
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][3, 3] = torch.nan
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UnsupportedModelError, match=r"0\.mlp\.up_proj\.weight' cannot be quantised: it has"):
        open_checkpoint(folder, "Int4").stored("model.layers.0.mlp.up_proj.weight")


def test_a_tensor_of_integers_is_refused(write_model):
    folder = write_model()
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"].int()
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UnsupportedModelError, match=r"'model\.norm\.weight' is I32; supported are F32, BF16, F16"):
        open_checkpoint(folder).stored("model.norm.weight")


@pytest.mark.parametrize("shape", [(96, 32), (95, 64), (96,), (0, 64), (96, 0), (0,)])
def test_a_tensor_of_another_shape_than_the_config_tells_is_refused(write_model, shape):
    folder = write_model()
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.gate_proj.weight"] = torch.zeros(shape)
    save_file(weights, folder / "model.safetensors")
    wanted = r"'model\.layers\.1\.mlp\.gate_proj\.weight' is .*; its config tells \(96, 64\)"
    with pytest.raises(UnsupportedModelError, match=wanted):
        open_checkpoint(folder).stored("model.layers.1.mlp.gate_proj.weight")
