"""Rounding matrices to GGUF's blocks of 32 numbers, the same bits on every machine.

Blocks are taken in stretches that stay in the processor's cache, with the numbers of a block one below the other: so
each of numpy's loops runs over thousands of blocks instead of over 32 numbers, which is twenty times as fast.

Layout of the blocks: `block_q8_0`, `block_q4_1` in ggml (src/ggml-common.h).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from moorage_runtime.formats.blocks import Bytes, Floats, Stored, as_float32
from moorage_runtime.formats.layout import FORMATS

_BLOCK = 32
_STRETCH = 2048
"""Blocks at a time: 256 KiB of float32."""
_REFITS = 2
"""Each lowers the squared error of Q4_1: on normal weights by 8 %, then 4 %; the third would by 2 %."""


def quantize(source: Stored, name: str) -> Stored:
    """The matrix `source` (F32, F16 or BF16) as "Q8_0" or "Q4_1" blocks.

    Raises:
        ValueError: a row is no whole number of blocks, or a number is not finite or beyond what a block holds.
    """
    form, rounding = FORMATS[name], _ROUNDINGS[name]
    width = form.row_bytes(source.columns)
    blocks = source.data.reshape(source.rows * source.columns // _BLOCK, -1)
    result = np.empty((len(blocks), form.size), np.uint8)
    for first in range(0, len(blocks), _STRETCH):
        numbers = as_float32(source.format, blocks[first : first + _STRETCH])
        with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is seen below
            rounding.write(np.ascontiguousarray(numbers.T), result[first : first + _STRETCH])
    if not np.isfinite(np.ascontiguousarray(result[:, : rounding.scales]).view(np.float16)).all():
        raise ValueError(f"it has numbers that {name} does not hold")
    return Stored(name, source.rows, source.columns, result.reshape(source.rows, width))


def _q8_0(numbers: Floats, blocks: Bytes) -> None:
    """`d` such that the largest of the 32 is 127 (float16), then 32 signed bytes; `numbers` (32, blocks)."""
    scale = (np.abs(numbers).max(0) / 127).astype(np.float16)
    rounded = np.rint(numbers * _inverse(scale.astype(np.float32)))
    blocks[:, :2] = scale.view(np.uint8).reshape(-1, 2)
    blocks[:, 2:] = np.clip(rounded, -127, 127, out=rounded).astype(np.int8).view(np.uint8).T


def _q4_1(numbers: Floats, blocks: Bytes) -> None:
    """`d` and `m` (float16), then 16 bytes of two `q` each for `d * q + m`: 0 to 15 in the low halves, 16 to 31 above.

    The line goes from the least number to the greatest at first, then by least squares through their steps.
    """
    least = numbers.min(0)
    scale, offset = _halves((numbers.max(0) - least) / 15, least)
    steps = _steps(numbers, scale, offset)
    for _ in range(_REFITS):
        scale, offset = _halves(*_least_squares(numbers, steps, scale, offset))
        steps = _steps(numbers, scale, offset)
    whole = steps.astype(np.uint8)
    blocks[:, :2] = scale.astype(np.float16).view(np.uint8).reshape(-1, 2)
    blocks[:, 2:4] = offset.astype(np.float16).view(np.uint8).reshape(-1, 2)
    blocks[:, 4:] = (whole[:16] | (whole[16:] << 4)).T


def _halves(*values: Floats) -> list[Floats]:
    """As float16 will hold them, so that the rounding to steps knows what is multiplied later."""
    return [value.astype(np.float16).astype(np.float32) for value in values]


def _steps(numbers: Floats, scale: Floats, offset: Floats) -> Floats:
    steps = numbers - offset
    steps *= _inverse(scale)
    np.rint(steps, out=steps)
    return np.clip(steps, 0, 15, out=steps)


def _least_squares(numbers: Floats, steps: Floats, scale: Floats, offset: Floats) -> tuple[Floats, Floats]:
    """The line through (step, number) of each block; a block whose numbers are one step keeps what it has."""
    total, squares = steps.sum(0), (steps * steps).sum(0)
    sums, products = numbers.sum(0), (steps * numbers).sum(0)
    spread = _BLOCK * squares - total * total
    slope = (_BLOCK * products - total * sums) * _inverse(spread)
    usable = slope > 0
    return np.where(usable, slope, scale), np.where(usable, (sums - slope * total) / _BLOCK, offset)


def _inverse(scale: Floats) -> Floats:
    return np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)


@dataclass(frozen=True, slots=True)
class _Rounding:
    write: Callable[[Floats, Bytes], None]
    scales: int
    """Bytes of float16 at the start of a block."""


_ROUNDINGS: Mapping[str, _Rounding] = {"Q8_0": _Rounding(_q8_0, 2), "Q4_1": _Rounding(_q4_1, 4)}
