"""Tensors as files hold them: numbers, or blocks of quantised numbers with their scales."""

from dataclasses import dataclass
from typing import Any

import numpy as np

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in the format that it is stored in."""

    format: str
    """One of `moorage_runtime.formats.layout.FORMATS`."""
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
