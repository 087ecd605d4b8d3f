"""Paged attention as a Triton kernel: grouped queries, any number of query tokens, online softmax (arXiv:2205.14135).

One program computes a tile of query rows for one KV head. A decoding row alone would keep a few of a GPU's processors
busy, so its past is cut into at most `SPLITS` parts, whose results `_combine` weighs by their log-sum-exp. Where it is
cut depends on the row's own length only: neighbours never change a row's bits here.

Numbers are bf16 or fp16 with fp32 sums, or fp32 throughout (no TF32). With TRITON_INTERPRET=1 it runs on CPU tensors.
"""

import math

import torch
import triton
from torch import Tensor
from triton import language as tl

from moorage_runtime.engine.blocks import BLOCK_TOKENS

SPLITS = 16
SPLIT_TOKENS = 128
"""Positions in a part of the past, at least."""
_KEY_BYTES = 16 * 1024
"""Keys that a program holds at once; values take as much. Both, twice for loads in flight, fit any GPU's memory."""
_SMALLEST_DOT = 16  # what tl.dot takes


def attend(queries: Tensor, blocks: Tensor, tables: Tensor, tiles: Tensor, *, tokens: int, out: Tensor) -> None:
    """See `moorage_runtime.model.torch_path.paged.Kernel`."""
    heads, dim, kv_heads = queries.shape[1], queries.shape[2], blocks.shape[3]
    dim_padded = max(_SMALLEST_DOT, triton.next_power_of_2(dim))
    splits, parts, weights = 1, out, out
    if tokens == 1:
        splits = SPLITS
        parts = torch.empty((splits, len(tiles), heads, dim), dtype=torch.float32, device=out.device)
        weights = torch.empty((splits, len(tiles), heads), dtype=torch.float32, device=out.device)
    _attend[(len(tiles), kv_heads, splits)](
        queries,
        blocks,
        tables,
        tiles,
        parts,
        weights,
        math.log2(math.e) / math.sqrt(dim),
        queries.stride(0),
        blocks.stride(0),
        tables.stride(0),
        kv_heads=kv_heads,
        group=heads // kv_heads,
        dim=dim,
        dim_padded=dim_padded,
        tile_rows=max(_SMALLEST_DOT, triton.next_power_of_2(tokens * heads // kv_heads)),
        keys=max(_SMALLEST_DOT, min(64, _KEY_BYTES // (dim_padded * blocks.element_size()))),
        block_tokens=BLOCK_TOKENS,
        splits=splits,
        split_tokens=SPLIT_TOKENS,
    )
    if splits > 1:
        _combine[(len(tiles), heads)](
            parts,
            weights,
            tiles,
            out,
            heads=heads,
            dim=dim,
            dim_padded=dim_padded,
            splits=splits,
            split_tokens=SPLIT_TOKENS,
        )


@triton.jit
def _part_tokens(length, splits: tl.constexpr, split_tokens: tl.constexpr):
    """Positions in each part of a past of `length`: a multiple of `split_tokens`."""
    return tl.cdiv(tl.cdiv(length, splits), split_tokens) * split_tokens


@triton.jit
def _attend(
    queries,
    blocks,
    tables,
    tiles,
    parts,
    weights,
    scale,
    query_stride,
    block_stride,
    table_stride,
    kv_heads: tl.constexpr,
    group: tl.constexpr,
    dim: tl.constexpr,
    dim_padded: tl.constexpr,
    tile_rows: tl.constexpr,
    keys: tl.constexpr,
    block_tokens: tl.constexpr,
    splits: tl.constexpr,
    split_tokens: tl.constexpr,
):
    """A tile of rows for one KV head, over one part of the past.

    A tile's row `i` is query head `i % group` of token `i // group`. With one part, `parts` is the result, by the row
    of the step; with several, each is by tile, which then has one token.
    """
    tile, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    sequence = tl.load(tiles + 4 * tile)
    first_row = tl.load(tiles + 4 * tile + 1)
    first_position = tl.load(tiles + 4 * tile + 2)
    tokens = tl.load(tiles + 4 * tile + 3)
    length = first_position + tokens
    begin, end = 0, length
    if splits > 1:
        size = _part_tokens(length, splits, split_tokens)
        begin = split * size
        end = tl.minimum(length, begin + size)
    if (tokens == 0) | (begin >= end):
        return

    row = tl.arange(0, tile_rows)
    token = row // group
    column = tl.arange(0, dim_padded)
    inside = (token < tokens)[:, None] & (column < dim)[None, :]
    target = (first_row + token).to(tl.int64)
    offset = (head * group + row % group) * dim
    query = tl.load(queries + (target * query_stride + offset)[:, None] + column[None, :], mask=inside, other=0.0)

    highest = tl.full([tile_rows], float("-inf"), tl.float32)
    total = tl.zeros([tile_rows], tl.float32)
    result = tl.zeros([tile_rows, dim_padded], tl.float32)
    for start in range(begin, end, keys):
        position = start + tl.arange(0, keys)
        known = position < end
        block = tl.load(tables + sequence * table_stride + position // block_tokens, mask=known, other=0).to(tl.int64)
        slot = block * block_stride + (position % block_tokens) * (2 * kv_heads * dim) + head * dim
        there = known[:, None] & (column < dim)[None, :]
        key = tl.load(blocks + slot[:, None] + column[None, :], mask=there, other=0.0)
        value = tl.load(blocks + slot[:, None] + kv_heads * dim + column[None, :], mask=there, other=0.0)
        score = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
        seen = known[None, :] & (position[None, :] <= (first_position + token)[:, None])
        score = tl.where(seen, score, float("-inf"))
        higher = tl.maximum(highest, tl.max(score, 1))
        shrink = tl.exp2(highest - higher)
        share = tl.exp2(score - higher[:, None])
        total = total * shrink + tl.sum(share, 1)
        result = result * shrink[:, None] + tl.dot(share.to(value.dtype), value, input_precision="ieee")
        highest = higher

    result = result / total[:, None]
    line = split * tl.num_programs(0) + tile + token if splits > 1 else target
    at = (line * kv_heads * group * dim + offset)[:, None] + column[None, :]
    tl.store(parts + at, result.to(parts.dtype.element_ty), mask=inside)
    if splits > 1:
        summed = highest + tl.log2(total)
        tl.store(weights + line * kv_heads * group + head * group + row % group, summed, mask=token < tokens)


@triton.jit
def _combine(
    parts,
    weights,
    tiles,
    out,
    heads: tl.constexpr,
    dim: tl.constexpr,
    dim_padded: tl.constexpr,
    splits: tl.constexpr,
    split_tokens: tl.constexpr,
):
    """One row and query head: the mean of its parts, weighed by the exponential of their log-sum-exp."""
    tile, head = tl.program_id(0), tl.program_id(1)
    row = tl.load(tiles + 4 * tile + 1).to(tl.int64)
    tokens = tl.load(tiles + 4 * tile + 3)
    if tokens == 0:
        return
    length = tl.load(tiles + 4 * tile + 2) + tokens
    used = tl.cdiv(length, _part_tokens(length, splits, split_tokens))
    part = tl.arange(0, splits)
    line = (part * tl.num_programs(0) + tile) * heads + head
    weight = tl.load(weights + line, mask=part < used, other=float("-inf"))
    share = tl.exp2(weight - tl.max(weight, 0))
    column = tl.arange(0, dim_padded)
    inside = (part < used)[:, None] & (column < dim)[None, :]
    values = tl.load(parts + line[:, None] * dim + column[None, :], mask=inside, other=0.0)
    result = tl.sum(values * share[:, None], 0) / tl.sum(share, 0)
    tl.store(out + (row * heads + head) * dim + column, result.to(out.dtype.element_ty), mask=column < dim)
