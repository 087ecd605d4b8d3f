"""From the plan of a step to the tensors of one forward pass over all its tokens."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from moorage_runtime.engine.blocks import BLOCK_TOKENS, blocks_for
from moorage_runtime.engine.plan import Chunk

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
class Batch:
    """All tokens of a step, one row each."""

    token_ids: Tensor
    positions: Tensor
    slots: Tensor
    """Where in the cache the row's keys and values belong."""
    groups: tuple[Group, ...]
    sample_rows: Tensor
    """Rows whose logits are wanted, in the order of the plan."""


def build(chunks: Iterable[Chunk], heads_per_kv: int, dtype: torch.dtype) -> Batch:
    """Lay the chunks out: decoding sequences of similar length beside each other, each chunk of a prompt by itself."""
    groups, first_row = [], {}
    token_ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    for members in _groups(chunks):
        start = len(token_ids)
        for chunk in members:
            first_row[chunk.sequence.id] = len(token_ids)
            end = chunk.start + chunk.count
            token_ids += chunk.sequence.tokens[chunk.start : end]
            positions += range(chunk.start, end)
            slots += _slots(chunk.sequence.blocks, chunk.start, end)
        rows = slice(start, len(token_ids))
        groups.append(_group(members, rows, torch.tensor(positions[rows]), heads_per_kv, dtype))
    sample_rows = [first_row[chunk.sequence.id] + chunk.count - 1 for chunk in chunks if chunk.samples]
    return Batch(
        token_ids=torch.tensor(token_ids),
        positions=torch.tensor(positions),
        slots=torch.tensor(slots),
        groups=tuple(groups),
        sample_rows=torch.tensor(sample_rows, dtype=torch.long),
    )


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


def _slots(blocks: list[int], start: int, end: int) -> Iterable[int]:
    return (blocks[at // BLOCK_TOKENS] * BLOCK_TOKENS + at % BLOCK_TOKENS for at in range(start, end))


def _group(members: list[Chunk], rows: slice, positions: Tensor, heads_per_kv: int, dtype: torch.dtype) -> Group:
    batch, queries = len(members), members[0].count
    width = max(blocks_for(chunk.start + chunk.count) for chunk in members)
    tables = [(chunk.sequence.blocks + [0] * width)[:width] for chunk in members]
    unseen = torch.arange(width * BLOCK_TOKENS) > positions.view(batch, 1, queries, 1)
    mask = torch.zeros(unseen.shape, dtype=dtype).masked_fill_(unseen, -torch.inf)
    mask = mask[:, :, None].expand(-1, -1, heads_per_kv, -1, -1).flatten(2, 3)
    return Group(rows, batch, queries, torch.tensor(tables).flatten(), mask)
