"""The numbers that GGUF's blocks hold, the same bits as ggml's own.

Each number is `scale * code + offset`, with one scale and one offset for a group of 16 or 32. Every product is exact or
rounded once, so the order of operations leaves no choice.

Layout of the blocks: `block_q*` and `dequantize_row_q*` in ggml (github.com/ggml-org/ggml, src/ggml-common.h and
src/ggml-quants.c).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from moorage_runtime.formats.blocks import Bytes, Floats, Stored
from moorage_runtime.formats.layout import FORMATS

_STRETCH = 1 << 16
"""Numbers at a time, so that what lies between bytes and numbers stays in the processor's cache."""

_Small = np.ndarray[Any, np.dtype[np.int8]]


class _Groups(NamedTuple):
    """What blocks hold: (blocks, numbers), (blocks, groups), (blocks, groups)."""

    codes: Bytes | _Small
    scales: Floats
    offsets: Floats | None = None


def dequantize(stored: Stored) -> Floats:
    """A tensor of blocks as (rows, columns) of float32."""
    form, read = FORMATS[stored.format], _READERS[stored.format]
    blocks = stored.data.reshape(-1, form.size)
    numbers = np.empty((len(blocks), form.block), np.float32)
    stretch = _STRETCH // form.block
    for first in range(0, len(blocks), stretch):
        _write(read(blocks[first : first + stretch]), numbers[first : first + stretch])
    return numbers.reshape(stored.rows, stored.columns)


def _write(groups: _Groups, numbers: Floats) -> None:
    shape = (*groups.scales.shape, -1)
    values = numbers.reshape(shape)  # a view: both are contiguous
    np.multiply(groups.scales[..., None], groups.codes.reshape(shape), out=values)
    if groups.offsets is not None:
        values += groups.offsets[..., None]


def _planes(packed: Bytes, bits: int) -> Bytes:
    """What lies above one another in each byte: (..., bytes) to (..., 8 / bits, bytes), the lowest bits first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    return packed[..., None, :] >> shifts & np.uint8((1 << bits) - 1)


def _codes(packed: Bytes, bits: int, run: int) -> Bytes:
    """Codes of a block of which every `run` bytes hold those that follow one another, plane by plane."""
    blocks = len(packed)
    return _planes(packed.reshape(blocks, -1, run), bits).reshape(blocks, -1)


def _half(blocks: Bytes, at: int) -> Floats:
    """The float16 there, as the one group's factor."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16).astype(np.float32)


def _fifth_bits(packed: Bytes) -> Bytes:
    return np.unpackbits(packed, axis=1, bitorder="little") << np.uint8(4)


def _minus(codes: Bytes, zero: int) -> _Small:
    return codes.view(np.int8) - np.int8(zero)


def _q4_0(blocks: Bytes) -> _Groups:
    return _Groups(_minus(_codes(blocks[:, 2:], 4, 16), 8), _half(blocks, 0))


def _q4_1(blocks: Bytes) -> _Groups:
    return _Groups(_codes(blocks[:, 4:], 4, 16), _half(blocks, 0), _half(blocks, 2))


def _q5_0(blocks: Bytes) -> _Groups:
    codes = _codes(blocks[:, 6:], 4, 16) | _fifth_bits(blocks[:, 2:6])
    return _Groups(_minus(codes, 16), _half(blocks, 0))


def _q5_1(blocks: Bytes) -> _Groups:
    codes = _codes(blocks[:, 8:], 4, 16) | _fifth_bits(blocks[:, 4:8])
    return _Groups(codes, _half(blocks, 0), _half(blocks, 2))


def _q8_0(blocks: Bytes) -> _Groups:
    return _Groups(blocks[:, 2:].view(np.int8), _half(blocks, 0))


def _q2_k(blocks: Bytes) -> _Groups:
    scales, minimums = blocks[:, :16] & np.uint8(15), blocks[:, :16] >> np.uint8(4)
    codes = _codes(blocks[:, 16:80], 2, 32)
    return _Groups(codes, _half(blocks, 80) * scales, -(_half(blocks, 82) * minimums))


def _q3_k(blocks: Bytes) -> _Groups:
    codes = _codes(blocks[:, 32:96], 2, 32) | _codes(blocks[:, :32], 1, 32) << np.uint8(2)
    scales = _codes(blocks[:, 96:104], 4, 8) | _codes(blocks[:, 104:108], 2, 4) << np.uint8(4)
    return _Groups(_minus(codes, 4), _half(blocks, 108) * _minus(scales, 32))


def _q4_k(blocks: Bytes) -> _Groups:
    return _Groups(_codes(blocks[:, 16:], 4, 32), *_six_bit_pairs(blocks))


def _q5_k(blocks: Bytes) -> _Groups:
    codes = _codes(blocks[:, 48:], 4, 32) | _codes(blocks[:, 16:48], 1, 32) << np.uint8(4)
    return _Groups(codes, *_six_bit_pairs(blocks))


def _six_bit_pairs(blocks: Bytes) -> tuple[Floats, Floats]:
    """8 scales and 8 minimums of 6 bits in 12 bytes: of the last four of each, the upper 2 bits lie above the first."""
    scales, minimums, rest = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    low, four, two = np.uint8(63), np.uint8(4), np.uint8(6)
    scales = np.concatenate([scales & low, rest & np.uint8(15) | scales >> two << four], axis=1)
    minimums = np.concatenate([minimums & low, rest >> four | minimums >> two << four], axis=1)
    return _half(blocks, 0) * scales, -(_half(blocks, 2) * minimums)


def _q6_k(blocks: Bytes) -> _Groups:
    codes = _codes(blocks[:, :128], 4, 64) | _codes(blocks[:, 128:192], 2, 32) << np.uint8(4)
    return _Groups(_minus(codes, 32), _half(blocks, 208) * blocks[:, 192:208].view(np.int8))


_READERS: Mapping[str, Callable[[Bytes], _Groups]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
