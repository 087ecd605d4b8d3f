"""Attention that gathers keys and values from their blocks and leaves the rest to torch: any device, any build."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from moorage_runtime.engine.blocks import BLOCK_TOKENS, blocks_for
from moorage_runtime.engine.plan import Chunk
from moorage_runtime.model.torch_path.batch import Batch, batch_of
from moorage_runtime.model.torch_path.cache import KVCache

GROUP_BLOCKS = 1024
"""Blocks that a group of decoding sequences gathers at most: bounds the memory of a step, whatever the contexts."""


@dataclass(frozen=True, slots=True)
class Group:
    """Chunks that attend together: `batch` of them with `queries` tokens each, in consecutive rows."""

    rows: slice
    batch: int
    queries: int
    tables: Tensor
    """Block numbers (batch * blocks,), padded with block 0."""
    mask: Tensor
    """What a query must not see is -inf, else 0: (batch, 1, heads per KV head * queries, positions)."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """See `moorage_runtime.model.torch_path.batch.Attention`."""

    groups: tuple[Group, ...]

    def __call__(self, queries: Tensor, layer: int, cache: KVCache) -> Tensor:
        """Group by group."""
        parts = [_attend(queries[group.rows], group, layer, cache) for group in self.groups]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def lay_out(chunks: Iterable[Chunk], heads_per_kv: int, dtype: torch.dtype, device: torch.device) -> Batch:
    """Decoding sequences of similar length beside each other, each chunk of a prompt by itself."""
    planned = tuple(chunks)
    ordered, groups = list[Chunk](), []
    start = 0
    for members in _groups(planned):
        rows = slice(start, start + len(members) * members[0].count)
        groups.append(_group(members, rows, heads_per_kv, dtype, device))
        ordered += members
        start = rows.stop
    return batch_of(ordered, planned, Gathered(tuple(groups)), device)


def _attend(queries: Tensor, group: Group, layer: int, cache: KVCache) -> Tensor:
    """Attention of a group, (rows, heads, head_dim) -> (rows, heads * head_dim).

    The query heads that share a KV head are laid beside each other as more queries, so that keys are read once.
    """
    folded = queries.view(group.batch, group.queries, cache.kv_heads, -1, cache.head_dim)
    folded = folded.permute(0, 2, 3, 1, 4).flatten(2, 3)
    keys, values = cache.read(layer, group.tables, group.batch)
    attended = functional.scaled_dot_product_attention(folded, keys, values, attn_mask=group.mask)
    attended = attended.view(group.batch, cache.kv_heads, -1, group.queries, cache.head_dim)
    return attended.permute(0, 3, 1, 2, 4).reshape(len(queries), -1)


def _groups(chunks: Iterable[Chunk]) -> Iterator[list[Chunk]]:
    """Single tokens in groups within which no past is padded to more than twice its blocks; longer chunks alone."""
    decodes: dict[int, list[Chunk]] = defaultdict(list)
    for chunk in chunks:
        if chunk.count == 1:
            decodes[blocks_for(chunk.start + 1).bit_length()].append(chunk)
        else:
            yield [chunk]
    for bits, members in decodes.items():
        size = max(1, GROUP_BLOCKS >> bits)
        yield from (members[first : first + size] for first in range(0, len(members), size))


def _group(members: list[Chunk], rows: slice, heads_per_kv: int, dtype: torch.dtype, device: torch.device) -> Group:
    batch, queries = len(members), members[0].count
    width = max(blocks_for(chunk.start + chunk.count) for chunk in members)
    tables = [(chunk.sequence.blocks + [0] * width)[:width] for chunk in members]
    positions = torch.tensor([range(chunk.start, chunk.start + chunk.count) for chunk in members])
    unseen = torch.arange(width * BLOCK_TOKENS) > positions.view(batch, 1, queries, 1)
    mask = torch.zeros(unseen.shape, dtype=dtype).masked_fill_(unseen, -torch.inf)
    mask = mask[:, :, None].expand(-1, -1, heads_per_kv, -1, -1).flatten(2, 3)
    return Group(rows, batch, queries, torch.tensor(tables).flatten().to(device), mask.to(device))
