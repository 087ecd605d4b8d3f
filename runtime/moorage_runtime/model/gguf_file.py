"""A model in llama.cpp's GGUF format, read natively: shape and tokens from the metadata, tensors dequantised.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader, dequantize
from torch import Tensor

from moorage_runtime.model.config import ModelConfig, Rope, architecture_of
from moorage_runtime.model.errors import UnsupportedModelError

ROPE_FACTORS = "rope_freqs"
"""Name of the tensor that holds divisors of the rotary frequencies, as `tensor` takes it."""

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


class GgufCheckpoint:
    """One GGUF file. `config` is its shape; tensors go by their Hugging Face names and come as float32."""

    def __init__(self, path: Path) -> None:
        try:
            self._reader = GGUFReader(path)
        except (OSError, ValueError, IndexError) as error:
            raise UnsupportedModelError(f"{path.name} cannot be read as GGUF: {error}") from error
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        self._architecture = architecture_of(self._field("general.architecture"))
        self.config = self._shape()

    def tensor(self, name: str) -> Tensor:
        """See `Checkpoint`."""
        tensor = self.optional(name)
        if tensor is None:
            raise UnsupportedModelError(f"the GGUF file has no tensor {_gguf_name(name)!r}")
        return tensor

    def optional(self, name: str) -> Tensor | None:
        """See `Checkpoint`."""
        stored = self._tensors.get(_gguf_name(name))
        if stored is None:
            return None
        try:
            values = dequantize(stored.data, stored.tensor_type)
        except NotImplementedError as error:
            raise UnsupportedModelError(f"tensor {stored.name!r}: {error}") from error
        tensor = torch.from_numpy(values.copy() if values.base is not None else values)
        # For this architecture llama.cpp rotates neighbours, so its converter interleaves the halves of each head.
        if self._architecture == "llama" and "self_attn.q_proj" in name:
            return _halves(tensor, self.config.heads)
        if self._architecture == "llama" and "self_attn.k_proj" in name:
            return _halves(tensor, self.config.kv_heads)
        return tensor

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
            vocab_size=int(self._tensors["token_embd.weight"].shape[1]),
            hidden_size=hidden_size,
            intermediate_size=int(self._number("feed_forward_length")),
            layers=int(self._number("block_count")),
            heads=heads,
            kv_heads=int(self._number("attention.head_count_kv", heads)),
            head_dim=head_dim,
            rms_eps=self._number("attention.layer_norm_rms_epsilon"),
            rope=self._rope(),
            context_length=min(trained, window) if window else trained,
            tied_embeddings="output.weight" not in self._tensors,
            eos_token_ids=self._eos_token_ids(),
        )

    def _rope(self) -> Rope:
        kind = self._field(f"{self._architecture}.rope.scaling.type") or "none"
        theta = self._number("rope.freq_base", 10_000.0)
        if kind == "none":
            return Rope(theta)
        if kind == "linear":
            return Rope(theta, linear_factor=self._number("rope.scaling.factor"))
        raise UnsupportedModelError(f"rope scaling {kind!r} is not supported in GGUF; supported are none, linear")

    def _eos_token_ids(self) -> tuple[int, ...]:
        ends = (self._field(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot"))
        return tuple(dict.fromkeys(int(end) for end in ends if end is not None))

    def _number(self, key: str, default: float | None = None) -> float:
        value = self._field(f"{self._architecture}.{key}")
        if isinstance(value, int | float):
            return value
        if value is None and default is not None:
            return default
        raise UnsupportedModelError(f"GGUF metadata {self._architecture}.{key} is {value!r}; a number is expected")

    def _field(self, key: str) -> Any:
        field = self._reader.get_field(key)
        return None if field is None else field.contents()


def _gguf_name(name: str) -> str:
    if name == ROPE_FACTORS:
        return "rope_freqs.weight"
    module, _, kind = name.rpartition(".")
    if module.startswith("model.layers."):
        _, _, layer, part = module.split(".", 3)
        return f"blk.{layer}.{_NAMES[part]}.{kind}"
    return f"{_NAMES[module]}.{kind}"


def _halves(tensor: Tensor, heads: int) -> Tensor:
    """Undo the permutation of the rows of each head: (0, d/2, 1, d/2 + 1, …) back to (0, 1, …)."""
    dim = tensor.shape[0] // heads
    return tensor.view(heads, dim // 2, 2, -1).transpose(1, 2).reshape(tensor.shape)
