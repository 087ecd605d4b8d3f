"""The paged KV cache: for each layer one table of blocks of `BLOCK_TOKENS` positions."""

import numpy as np
import torch
from torch import Tensor

from moorage_runtime.engine.blocks import BLOCK_TOKENS
from moorage_runtime.model.config import ModelConfig

CPU = torch.device("cpu")


def block_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
    """Bytes of one block over all layers."""
    return config.layers * BLOCK_TOKENS * config.kv_size * dtype.itemsize


class KVCache:
    """Keys and values of one position lie side by side, keys first: one copy writes both and one gather reads both."""

    def __init__(
        self,
        config: ModelConfig,
        blocks: int,
        dtype: torch.dtype,
        layers: int | None = None,
        device: torch.device = CPU,
    ) -> None:
        shape = (blocks, BLOCK_TOKENS * config.kv_size)
        self.kv_heads = config.kv_heads
        self.head_dim = config.head_dim
        self._blocks = [_zeros(shape, dtype, device) for _ in range(layers or config.layers)]
        self._slots = [blocks.view(-1, config.kv_size) for blocks in self._blocks]

    def write(self, layer: int, slots: Tensor, kv: Tensor) -> None:
        """Store `kv` (tokens, 2 * kv_heads * head_dim) at the positions `slots` (tokens,)."""
        self._slots[layer].index_copy_(0, slots, kv)

    def read(self, layer: int, tables: Tensor, batch: int) -> tuple[Tensor, Tensor]:
        """Keys and values of `batch` sequences, each (batch, kv_heads, positions, head_dim).

        Args:
            layer: Which layer.
            tables: Block numbers (batch * blocks,), each sequence padded to the same number of blocks.
            batch: Number of sequences.
        """
        kv = self._blocks[layer].index_select(0, tables).view(batch, -1, 2, self.kv_heads, self.head_dim)
        return kv[:, :, 0].transpose(1, 2), kv[:, :, 1].transpose(1, 2)

    def blocks(self, layer: int) -> Tensor:
        """A layer's blocks where they lie: (blocks, `BLOCK_TOKENS`, 2, kv_heads, head_dim), keys before values."""
        return self._blocks[layer].view(-1, BLOCK_TOKENS, 2, self.kv_heads, self.head_dim)


def _zeros(shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    # Zeros, because a padded position weighs 0 in attention, and 0 times a leftover NaN would be NaN.
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    # numpy asks the kernel for zero pages, which take no memory until they are written; torch.zeros writes them all.
    return torch.from_numpy(np.zeros((shape[0], shape[1] * dtype.itemsize), np.uint8)).view(dtype)
