"""Tensors as files hold them: numbers, or blocks of quantised numbers with their scales.

A format has the name that GGUF gives it. A row of a matrix is a whole number of blocks, rows follow one another.

Source: `ggml_type` and the `block_*` structures of ggml (github.com/ggml-org/ggml, src/ggml-common.h).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Format:
    """How numbers are laid out: `block` of them in `size` bytes."""

    name: str
    block: int
    size: int

    def row_bytes(self, columns: int) -> int:
        """Bytes of a row of so many numbers.

        Raises:
            ValueError: a row is no whole number of blocks.
        """
        if columns % self.block:
            raise ValueError(f"a row of {columns} numbers is no whole number of {self.name} blocks of {self.block}")
        return columns // self.block * self.size


FORMATS: Mapping[str, Format] = {
    name: Format(name, block, size)
    for name, block, size in (
        ("F32", 1, 4),
        ("F16", 1, 2),
        ("BF16", 1, 2),
        ("Q4_0", 32, 18),
        ("Q4_1", 32, 20),
        ("Q5_0", 32, 22),
        ("Q5_1", 32, 24),
        ("Q8_0", 32, 34),
        ("Q2_K", 256, 84),
        ("Q3_K", 256, 110),
        ("Q4_K", 256, 144),
        ("Q5_K", 256, 176),
        ("Q6_K", 256, 210),
    )
}
"""What the engine computes with."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a tensor is, without its numbers: the fields are those of `Stored`."""

    format: str
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in the format that it is stored in."""

    format: str
    """One of `FORMATS`."""
    rows: int
    """1 for a vector, which is always F32."""
    columns: int
    data: Bytes
    """(rows, bytes of a row), contiguous; part of the mapped file where that was possible."""


def as_float32(name: str, data: Bytes) -> Floats:
    """The numbers that F32, F16 or BF16 bytes hold, in the shape of `data` but for its last axis."""
    if name == "F32":
        return np.ascontiguousarray(data).view(np.float32)
    if name == "F16":
        return np.ascontiguousarray(data).view(np.float16).astype(np.float32)
    # bfloat16 is the upper half of a float32.
    return (np.ascontiguousarray(data).view(np.uint16).astype(np.uint32) << 16).view(np.float32)
