"""The forward pass of the Llama family (Llama, Mistral, Qwen2, Qwen3, SmolLM): written out, over the paged cache.

One pass computes all rows of a step, whatever mixture of decoding sequences and chunks of prompts they are. Queries,
keys and values are one matrix product, and each product takes along the elementwise operation that follows it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from moorage_runtime.model.checkpoint import ROPE_FACTORS, Checkpoint
from moorage_runtime.model.rotary import inverse_frequencies
from moorage_runtime.model.torch_path.batch import Batch
from moorage_runtime.model.torch_path.cache import CPU, KVCache
from moorage_runtime.model.torch_path.linear import Linear, pack
from moorage_runtime.model.torch_path.ranks import Ranks, Residual
from moorage_runtime.model.torch_path.rope import rotate_, rotation


@dataclass(frozen=True, slots=True)
class Layer:
    """Weights of one decoder layer."""

    attention_norm: Tensor
    qkv: Linear
    head_norm: Tensor | None
    """Qwen3's norm of each query and key head: (heads + kv_heads, head_dim)."""
    output: Residual
    mlp_norm: Tensor
    gate: Linear
    up: Linear
    down: Residual


class Llama:
    """A decoder with its weights in memory."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        dtype: torch.dtype,
        progress: Callable[[float], None],
        device: torch.device = CPU,
        ranks: Ranks | None = None,
    ) -> None:
        """With `ranks` the checkpoint is this rank's part of a model."""
        self.config = checkpoint.config
        self._ranks = ranks
        self.dtype = dtype
        self.device = device
        self.weight_bytes = 0
        self._checkpoint = checkpoint
        table = self._read("model.embed_tokens.weight")
        self._embedding = partial(functional.embedding, weight=table) if ranks is None else ranks.embedding(table)
        factors = checkpoint.optional(ROPE_FACTORS)
        divisors = None if factors is None else factors.float().numpy()
        frequencies = inverse_frequencies(self.config.rope, self.config.head_dim, divisors)
        self._frequencies = torch.from_numpy(frequencies).to(device)
        self._layers = []
        for index in range(self.config.layers):
            self._layers.append(self._layer(f"model.layers.{index}"))
            progress((index + 1) / self.config.layers)
        self._norm = self._read("model.norm.weight")
        last = pack(table if self.config.tied_embeddings else self._read("lm_head.weight"))
        self._head: Callable[[Tensor], Tensor] = last if ranks is None else ranks.head(last)
        del self._checkpoint

    def forward(self, batch: Batch, cache: KVCache, layers: int | None = None) -> Tensor:
        """Logits (sampling rows, vocabulary); keys and values of all rows are in the cache afterwards.

        Of several ranks the first has them; the others return their own part of the vocabulary.

        Args:
            batch: The rows.
            cache: What the rows attend to, besides each other.
            layers: Stop after so many: to measure memory, of which each layer takes the same.
        """
        x = self._embedding(batch.token_ids)
        cos, sin = rotation(batch.positions, self._frequencies, self.dtype)
        for index, layer in enumerate(self._layers[:layers]):
            qkv = self._qkv(layer, self._normed(x, layer.attention_norm), cos, sin)
            x = layer.output.plus(self._attention(qkv, index, batch, cache), x)
            normed = self._normed(x, layer.mlp_norm)
            x = layer.down.plus(layer.up.times(normed, layer.gate.silu(normed)), x)
        return self._head(self._normed(x.index_select(0, batch.sample_rows), self._norm))

    def _qkv(self, layer: Layer, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Queries, keys, values of all rows: (rows, heads + 2 * kv_heads, head_dim), queries and keys rotated."""
        config = self.config
        qkv = layer.qkv(x).view(len(x), -1, config.head_dim)
        turned = qkv[:, : config.heads + config.kv_heads]
        if layer.head_norm is not None:
            turned.copy_(functional.rms_norm(turned, (config.head_dim,), eps=config.rms_eps).mul_(layer.head_norm))
        rotate_(turned, cos, sin)
        return qkv

    def _attention(self, qkv: Tensor, layer: int, batch: Batch, cache: KVCache) -> Tensor:
        """Each row attends to its sequence's past and to itself: (rows, heads * head_dim)."""
        heads = self.config.heads
        cache.write(layer, batch.slots, qkv[:, heads:].flatten(1))
        return batch.attention(qkv[:, :heads], layer, cache)

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return functional.rms_norm(x, weight.shape, weight, self.config.rms_eps)

    def _layer(self, prefix: str) -> Layer:
        return Layer(
            attention_norm=self._read(f"{prefix}.input_layernorm.weight"),
            qkv=self._linear(*(f"{prefix}.self_attn.{name}_proj" for name in "qkv")),
            head_norm=self._head_norm(prefix),
            output=self._summed(f"{prefix}.self_attn.o_proj"),
            mlp_norm=self._read(f"{prefix}.post_attention_layernorm.weight"),
            gate=self._linear(f"{prefix}.mlp.gate_proj"),
            up=self._linear(f"{prefix}.mlp.up_proj"),
            down=self._summed(f"{prefix}.mlp.down_proj"),
        )

    def _head_norm(self, prefix: str) -> Tensor | None:
        if self.config.architecture != "qwen3":
            return None
        queries = self._read(f"{prefix}.self_attn.q_norm.weight").expand(self.config.heads, -1)
        keys = self._read(f"{prefix}.self_attn.k_norm.weight").expand(self.config.kv_heads, -1)
        return torch.cat((queries, keys))

    def _summed(self, name: str) -> Residual:
        """A product of whose inputs each rank has a part."""
        linear = self._linear(name)
        return linear if self._ranks is None else self._ranks.summed(linear)

    def _linear(self, *names: str) -> Linear:
        """One product for all of these, their outputs side by side."""
        weights = [self._read(f"{name}.weight") for name in names]
        biases = [self._optional(f"{name}.bias") for name in names]
        if all(bias is None for bias in biases):
            return pack(torch.cat(weights))
        filled = [
            weight.new_zeros(len(weight)) if bias is None else bias
            for weight, bias in zip(weights, biases, strict=True)
        ]
        return pack(torch.cat(weights), torch.cat(filled))

    def _read(self, name: str) -> Tensor:
        return self._counted(self._checkpoint.tensor(name))

    def _optional(self, name: str) -> Tensor | None:
        tensor = self._checkpoint.optional(name)
        return None if tensor is None else self._counted(tensor)

    def _counted(self, tensor: Tensor) -> Tensor:
        tensor = tensor.to(self.dtype).to(self.device)
        self.weight_bytes += tensor.nbytes
        return tensor
