"""The rows of a step: one for each token that is computed, whatever attends."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from moorage_runtime.engine.blocks import BLOCK_TOKENS
from moorage_runtime.engine.plan import Chunk
from moorage_runtime.model.torch_path.cache import KVCache


class Attention(Protocol):
    """How the rows of one step attend."""

    def __call__(self, queries: Tensor, layer: int, cache: KVCache) -> Tensor:
        """Each row attends to its sequence's past and to itself: (rows, heads, head_dim) -> (rows, heads * head_dim).

        The keys and values of the rows themselves are in the cache already.
        """
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """All tokens of a step, one row each."""

    token_ids: Tensor
    positions: Tensor
    slots: Tensor
    """Where in the cache the row's keys and values belong."""
    sample_rows: Tensor
    """Rows whose logits are wanted, in the order of the plan."""
    attention: Attention


def batch_of(ordered: Sequence[Chunk], planned: Iterable[Chunk], attention: Attention, device: torch.device) -> Batch:
    """The rows of the chunks, in the order in which `attention` wants them.

    Args:
        ordered: All chunks of the step, in the order of their rows.
        planned: The same chunks in the order of the plan, which is that of the results.
        attention: Made for the rows in this order.
        device: Where the tensors go.
    """
    first_row, token_ids = {}, list[int]()
    for chunk in ordered:
        first_row[chunk.sequence.id] = len(token_ids)
        token_ids += chunk.tokens
    sample_rows = [first_row[chunk.sequence.id] + chunk.count - 1 for chunk in planned if chunk.samples]
    return Batch(
        token_ids=_integers(token_ids, device),
        positions=_integers([at for chunk in ordered for at in range(chunk.start, chunk.start + chunk.count)], device),
        slots=_integers([slot for chunk in ordered for slot in slots(chunk)], device),
        sample_rows=_integers(sample_rows, device),
        attention=attention,
    )


def slots(chunk: Chunk) -> Iterable[int]:
    """The place in the cache of each token of a chunk."""
    blocks = chunk.sequence.blocks
    positions = range(chunk.start, chunk.start + chunk.count)
    return (blocks[at // BLOCK_TOKENS] * BLOCK_TOKENS + at % BLOCK_TOKENS for at in positions)


def _integers(values: list[int], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.long).to(device)
