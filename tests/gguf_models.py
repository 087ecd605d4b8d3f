"""Checkpoints as GGUF files, laid out as llama.cpp's converter (convert_hf_to_gguf.py) lays them out."""

import gguf
import numpy as np

from moorage_runtime.model.config import Rope
from moorage_runtime.model.rotary import inverse_frequencies

_PARTS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
# Where a block has the float16 scale of its numbers; where it has one for what is added, and that as a share of the
# first such that the numbers lie around zero.
_SCALE = {
    "Q4_0": 0,
    "Q4_1": 0,
    "Q5_0": 0,
    "Q5_1": 0,
    "Q8_0": 0,
    "Q2_K": 80,
    "Q3_K": 108,
    "Q4_K": 0,
    "Q5_K": 0,
    "Q6_K": 208,
}
_OFFSET = {"Q4_1": (2, -7.5), "Q5_1": (2, -15.5), "Q2_K": (82, 1.5), "Q4_K": (2, 7.5), "Q5_K": (2, 15.5)}


def write_gguf(path, source, *, architecture=None, pack=None, **metadata):
    """Write the model that a checkpoint is.

    Args:
        path: The file.
        source: What it is read from.
        architecture: Another than the model's own.
        pack: Makes (blocks, GGML type) of a matrix; by default it is written in float32.
        metadata: Arguments of the writer's `add_` methods, in place of what the config says.
    """
    config = source.config
    name = architecture or {"mistral": "llama"}.get(config.architecture, config.architecture)
    writer = gguf.GGUFWriter(path, name)
    for key, value in {**_metadata(config), **metadata}.items():
        getattr(writer, f"add_{key}")(value)
    for tensor_name, values in _tensors(source, permuted=name == "llama"):
        if pack is None or values.ndim == 1:
            writer.add_tensor(tensor_name, values)
        else:
            blocks, kind = pack(values)
            writer.add_tensor(tensor_name, blocks, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def quantized(name):
    """For `pack`: the numbers rounded to the format of that name."""
    kind = gguf.GGMLQuantizationType[name]
    return lambda values: (gguf.quantize(values, kind), kind)


def random_blocks(name, seed=0):
    """For `pack`: blocks of any bits in place of the numbers, whose scales keep these within about 0.3."""
    kind, chance = gguf.GGMLQuantizationType[name], np.random.default_rng(seed)
    block, size = gguf.GGML_QUANT_SIZES[kind]

    def pack(values):
        rows, columns = values.shape
        blocks = chance.integers(0, 256, (rows, columns // block, size), np.uint8)
        scales = chance.uniform(0.5, 1, (rows, columns // block)) * 2.0**-6
        _put(blocks, name, scales)
        _put(blocks, name, scales * 0.3 / np.abs(gguf.dequantize(blocks.reshape(rows, -1), kind)).max())
        return blocks.reshape(rows, -1), kind

    return pack


def _put(blocks, name, scales):
    at = _SCALE[name]
    blocks[:, :, at : at + 2] = scales[:, :, None].astype(np.float16).view(np.uint8)
    if name in _OFFSET:
        at, share = _OFFSET[name]
        blocks[:, :, at : at + 2] = (scales[:, :, None] * share).astype(np.float16).view(np.uint8)


def interleaved(weight, heads):
    """The permutation of the rows of queries and keys (`LlamaModel.permute`)."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def _metadata(config):
    found = {
        "context_length": config.context_length,
        "embedding_length": config.hidden_size,
        "block_count": config.layers,
        "feed_forward_length": config.intermediate_size,
        "head_count": config.heads,
        "head_count_kv": config.kv_heads,
        "key_length": config.head_dim,
        "layer_norm_rms_eps": config.rms_eps,
        "rope_freq_base": config.rope.theta,
    }
    if config.eos_token_ids:
        found["eos_token_id"] = config.eos_token_ids[0]
    if config.rope.linear_factor != 1.0:
        found |= {
            "rope_scaling_type": gguf.RopeScalingType.LINEAR,
            "rope_scaling_factor": config.rope.linear_factor,
        }
    return found


def _tensors(source, *, permuted):
    config = source.config
    yield "token_embd.weight", source.tensor("model.embed_tokens.weight").numpy()
    yield "output_norm.weight", source.tensor("model.norm.weight").numpy()
    if not config.tied_embeddings:
        yield "output.weight", source.tensor("lm_head.weight").numpy()
    if config.rope.llama3 is not None:
        plain, scaled = (inverse_frequencies(rope, config.head_dim) for rope in (Rope(config.rope.theta), config.rope))
        yield "rope_freqs.weight", (plain / scaled).astype(np.float32)
    for layer in range(config.layers):
        for part, written in _PARTS.items():
            for kind in ("weight", "bias"):
                tensor = source.optional(f"model.layers.{layer}.{part}.{kind}")
                if tensor is not None:
                    values = tensor.numpy()
                    if permuted and written in ("attn_q", "attn_k"):
                        values = interleaved(values, config.heads if written == "attn_q" else config.kv_heads)
                    yield f"blk.{layer}.{written}.{kind}", values
