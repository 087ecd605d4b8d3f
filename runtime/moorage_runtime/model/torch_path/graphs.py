"""Decoding steps as CUDA graphs: hundreds of small kernels, launched as one. GPUs only.

A graph replays the same kernels on the same addresses, so there is one for each padded number of rows, and what changes
from step to step is copied into tensors that stay. Padded rows attend to nothing and write their keys and values to a
block at the end of the cache that no sequence ever has.

Left for later: the host plans step n + 1 while the GPU computes step n. A step's tokens come back to the host first.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from moorage_runtime.engine.blocks import BLOCK_TOKENS, blocks_for
from moorage_runtime.engine.plan import Chunk, Limits
from moorage_runtime.model.torch_path.batch import Batch, slots
from moorage_runtime.model.torch_path.cache import KVCache
from moorage_runtime.model.torch_path.llama import Llama
from moorage_runtime.model.torch_path.paged import Kernel, Paged, block_tables

SCRATCH_BLOCKS = 1
"""Blocks that the cache has behind those of the engine, for padded rows."""


class Capture(Protocol):
    """Records what a function computes: `gpu.GraphCapture`, or a stand-in in a test."""

    def __call__(self, compute: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """What computes it again from the same inputs' new contents, and the tensor that then holds the result."""
        ...


class DecodeGraphs:
    """Steps in which every sequence computes its one last token, captured for padded numbers of sequences."""

    def __init__(self, model: Llama, cache: KVCache, kernel: Kernel, limits: Limits, capture: Capture) -> None:
        self._inputs = Inputs(limits, model.device)
        self._graphs = {}
        # The largest first: the smaller ones find room in the memory that it took.
        for size in reversed(padded_sizes(limits.max_running)):
            batch = self._inputs.batch(size, kernel)
            self._graphs[size] = capture(partial(model.forward, batch, cache))

    def logits(self, chunks: tuple[Chunk, ...]) -> Tensor:
        """Logits of the chunks in their order, (chunks, vocabulary), good until the next step."""
        size = min(size for size in self._graphs if size >= len(chunks))
        self._inputs.fill(chunks, size)
        replay, logits = self._graphs[size]
        replay()
        return logits[: len(chunks)]


class Inputs:
    """What changes from step to step, at addresses that do not."""

    def __init__(self, limits: Limits, device: torch.device) -> None:
        rows, width = limits.max_running, blocks_for(limits.context_length)
        self._scratch_slot = limits.total_blocks * BLOCK_TOKENS
        self._rows = torch.zeros((3, rows), dtype=torch.long, device=device)
        self._tiles = torch.zeros((rows, 4), dtype=torch.int32, device=device)
        self._tables = torch.zeros((rows, width), dtype=torch.int32, device=device)

    def batch(self, size: int, kernel: Kernel) -> Batch:
        """The first `size` rows, all padding as yet."""
        self.fill((), size)
        token_ids, positions, slots = self._rows[:, :size]
        attention = Paged(kernel, self._tables[:size], decodes=self._tiles[:size], prompts=self._tiles[:0])
        sample_rows = torch.arange(size, device=self._rows.device)
        return Batch(token_ids, positions, slots, sample_rows, attention)

    def fill(self, chunks: tuple[Chunk, ...], size: int) -> None:
        """Make the first rows those of the chunks, and the others up to `size` padding."""
        padding = size - len(chunks)
        rows = [(chunk.tokens[0], chunk.start, *slots(chunk)) for chunk in chunks]
        rows += [(0, 0, self._scratch_slot)] * padding
        tiles = [(row, row, chunk.start, 1) for row, chunk in enumerate(chunks)] + [(0, 0, 0, 0)] * padding
        self._rows[:, :size].copy_(torch.tensor(rows).T)
        self._tiles[:size].copy_(torch.tensor(tiles, dtype=torch.int32))
        if chunks:
            tables = block_tables(chunks).to(self._tables.device)
            self._tables[: len(chunks), : tables.shape[1]].copy_(tables)


def padded_sizes(max_running: int) -> list[int]:
    """1, 2, 4, … and `max_running`: a step computes less than twice the rows that it has."""
    sizes = [1 << bit for bit in range(max_running.bit_length())]
    return sorted({min(size, max_running) for size in [*sizes, max_running]})


def only_decodes(chunks: tuple[Chunk, ...]) -> bool:
    """Whether every chunk is one token that brings the next."""
    return all(chunk.count == 1 and chunk.samples for chunk in chunks)
