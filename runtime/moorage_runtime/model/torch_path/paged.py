"""Attention that reads blocks where they lie in the cache: what a kernel is given, whoever it is. GPUs only.

Why not `torch.nn.attention.varlen`: it takes a block table, but the FlashAttention 2 that torch ships refuses one; only
FlashAttention 3 and 4 read paged keys, packages of their own for one generation of GPU each. The kernel in
`paged_kernel` is the one path for all of them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from moorage_runtime.engine.blocks import blocks_for
from moorage_runtime.engine.plan import Chunk
from moorage_runtime.model.torch_path.batch import Batch, batch_of
from moorage_runtime.model.torch_path.cache import KVCache

TILE_ROWS = 64
"""Query heads times tokens that one program of the kernel computes for a KV head: fills a GPU's matrix units."""


class Kernel(Protocol):
    """What attends: `paged_kernel.attend`, or a reference in a test."""

    def __call__(
        self, queries: Tensor, blocks: Tensor, tables: Tensor, tiles: Tensor, *, tokens: int, out: Tensor
    ) -> None:
        """Attend for every tile.

        Args:
            queries: (rows, heads, head_dim).
            blocks: A layer of the cache, see `KVCache.blocks`.
            tables: Block numbers of each sequence (sequences, width), int32.
            tiles: (tiles, 4), int32: sequence, first row, position of that row, rows (0: the tile is padding).
            tokens: Rows that a tile has at most.
            out: Like `queries`; the rows of the tiles are written.
        """
        ...


@dataclass(frozen=True, slots=True)
class Paged:
    """See `moorage_runtime.model.torch_path.batch.Attention`."""

    kernel: Kernel
    tables: Tensor
    decodes: Tensor
    """Tiles of one token each."""
    prompts: Tensor
    """Tiles of the chunks of prompts."""

    def __call__(self, queries: Tensor, layer: int, cache: KVCache) -> Tensor:
        """Decodes and prompts by themselves: few queries over a long past want it split, many do not."""
        out = torch.empty_like(queries, memory_format=torch.contiguous_format)
        blocks = cache.blocks(layer)
        for tiles, tokens in ((self.decodes, 1), (self.prompts, tile_tokens(queries.shape[1] // cache.kv_heads))):
            if len(tiles):
                self.kernel(queries, blocks, self.tables, tiles, tokens=tokens, out=out)
        return out.flatten(1)


def lay_out(chunks: Iterable[Chunk], heads_per_kv: int, kernel: Kernel, device: torch.device) -> Batch:
    """The rows in the order of the plan."""
    planned = tuple(chunks)
    decodes, prompts = list[tuple[int, int, int, int]](), list[tuple[int, int, int, int]]()
    row, tokens = 0, tile_tokens(heads_per_kv)
    for sequence, chunk in enumerate(planned):
        if chunk.count == 1:
            decodes.append((sequence, row, chunk.start, 1))
        for first in range(0, chunk.count if chunk.count > 1 else 0, tokens):
            prompts.append((sequence, row + first, chunk.start + first, min(tokens, chunk.count - first)))
        row += chunk.count
    attention = Paged(kernel, block_tables(planned).to(device), _tiles(decodes, device), _tiles(prompts, device))
    return batch_of(planned, planned, attention, device)


def tile_tokens(heads_per_kv: int) -> int:
    """Tokens of a prompt in one tile."""
    return max(1, TILE_ROWS // heads_per_kv)


def block_tables(chunks: tuple[Chunk, ...]) -> Tensor:
    """Block numbers of each chunk's sequence as far as it attends (chunks, width), padded with block 0."""
    widths = [blocks_for(chunk.start + chunk.count) for chunk in chunks]
    tables = np.zeros((len(chunks), max(widths)), np.int32)
    for table, chunk, width in zip(tables, chunks, widths, strict=True):
        table[:width] = chunk.sequence.blocks[:width]
    return torch.from_numpy(tables)


def _tiles(tiles: list[tuple[int, int, int, int]], device: torch.device) -> Tensor:
    return torch.tensor(tiles, dtype=torch.int32).view(-1, 4).to(device)
