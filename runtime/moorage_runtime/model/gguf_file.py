"""A model in llama.cpp's GGUF format: shape and end tokens from the metadata, tensors in their own quantised blocks."""

import math
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from moorage_runtime.formats.blocks import Bytes, Stored, as_float32
from moorage_runtime.formats.gguf import GgufError, GgufFile, TensorInfo
from moorage_runtime.formats.token_ids import token_ids
from moorage_runtime.model.config import ModelConfig, Rope, architecture_of
from moorage_runtime.model.errors import UnsupportedModelError
from moorage_runtime.model.shapes import ROPE_FACTORS
from moorage_runtime.model.tensors import Checkpoint

_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
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


class GgufCheckpoint(Checkpoint):
    """One GGUF file. Tensors are mapped, not copied, but for the query and key rows of the llama architecture."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = GgufFile(path)
        except (OSError, GgufError) as error:
            raise UnsupportedModelError(f"{path.name} cannot be read as GGUF: {error}") from error
        self._architecture = architecture_of(self._field("general.architecture"))
        try:
            self.config = self._shape()
        except (ValueError, ArithmeticError) as error:  # numbers that are none, or by which nothing can be divided
            raise UnsupportedModelError(f"{path.name}: its metadata cannot be read: {error}") from error

    def _find(self, name: str) -> Stored | None:
        info = self._file.tensors.get(_gguf_name(name))
        if info is None:
            return None
        data = self._data(info)
        # For this architecture llama.cpp rotates neighbours, so its converter interleaves the halves of each head.
        if self._architecture == "llama" and "self_attn.q_proj" in name:
            data = _halves(data, info, self.config.heads)
        if self._architecture == "llama" and "self_attn.k_proj" in name:
            data = _halves(data, info, self.config.kv_heads)
        return _vector(info, data) if len(info.shape) == 1 else Stored(info.type, len(data), info.shape[-1], data)

    def _data(self, info: TensorInfo) -> Bytes:
        try:
            data = self._file.data(info)
        except GgufError as error:
            raise UnsupportedModelError(str(error)) from error
        return np.frombuffer(data, np.uint8).reshape(math.prod(info.shape[:-1]), -1)

    def _shape(self) -> ModelConfig:
        heads = int(self._number("attention.head_count"))
        hidden_size = int(self._number("embedding_length"))
        head_dim = int(self._number("attention.key_length", hidden_size // heads))
        if (rotated := int(self._number("rope.dimension_count", head_dim))) != head_dim:
            raise UnsupportedModelError(f"rotary embedding of {rotated} of {head_dim} numbers is not supported")
        window = int(self._number("attention.sliding_window", 0))
        trained = int(self._number("context_length"))
        return ModelConfig(
            architecture=self._architecture,
            vocab_size=self._vocabulary(),
            hidden_size=hidden_size,
            intermediate_size=int(self._number("feed_forward_length")),
            layers=int(self._number("block_count")),
            heads=heads,
            kv_heads=int(self._number("attention.head_count_kv", heads)),
            head_dim=head_dim,
            rms_eps=self._number("attention.layer_norm_rms_epsilon"),
            rope=self._rope(),
            context_length=min(trained, window) if window else trained,
            tied_embeddings="output.weight" not in self._file.tensors,
            eos_token_ids=self._eos_token_ids(),
        )

    def _vocabulary(self) -> int:
        embedding = self._file.tensors.get("token_embd.weight")
        if embedding is None:
            raise UnsupportedModelError("the GGUF file has no tensor 'token_embd.weight'")
        return embedding.shape[0]

    def _rope(self) -> Rope:
        kind = self._field(f"{self._architecture}.rope.scaling.type") or "none"
        theta = self._number("rope.freq_base", 10_000.0)
        if kind == "none":
            return Rope(theta)
        if kind == "linear":
            return Rope(theta, linear_factor=self._number("rope.scaling.factor"))
        raise UnsupportedModelError(f"rope scaling {kind!r} is not supported in GGUF; supported are none, linear")

    def _eos_token_ids(self) -> tuple[int, ...]:
        ends = (token_ids(self._field(f"tokenizer.ggml.{name}_token_id")) for name in ("eos", "eot"))
        return tuple(dict.fromkeys(chain.from_iterable(ends)))

    def _number(self, key: str, default: float | None = None) -> float:
        value = self._field(f"{self._architecture}.{key}")
        if isinstance(value, int | float):
            return value
        if value is None and default is not None:
            return default
        raise UnsupportedModelError(f"GGUF metadata {self._architecture}.{key} is {value!r}; a number is expected")

    def _field(self, key: str) -> Any:
        try:
            return self._file.metadata.get(key)
        except GgufError as error:
            raise UnsupportedModelError(str(error)) from error


def _gguf_name(name: str) -> str:
    if name == ROPE_FACTORS:
        return "rope_freqs.weight"
    module, _, kind = name.rpartition(".")
    if module.startswith("model.layers."):
        _, _, layer, part = module.split(".", 3)
        return f"blk.{layer}.{_NAMES[part]}.{kind}"
    return f"{_NAMES[module]}.{kind}"


def _vector(info: TensorInfo, data: Bytes) -> Stored:
    if info.type not in ("F32", "F16", "BF16"):
        raise UnsupportedModelError(f"tensor {info.name!r} is a vector of {info.type}; supported are F32, F16, BF16")
    return Stored("F32", 1, info.shape[0], as_float32(info.type, data).view(np.uint8))


def _halves(data: Bytes, info: TensorInfo, heads: int) -> Bytes:
    """Undo the permutation of the rows of each head: (0, d/2, 1, d/2 + 1, …) back to (0, 1, …)."""
    if info.shape[0] % (2 * heads):
        raise UnsupportedModelError(f"tensor {info.name!r} has {info.shape[0]} rows for {heads} heads")
    rows = data.reshape(heads, info.shape[0] // heads // 2, 2, -1)
    return np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(data.shape)
