"""A safetensors file: a JSON header with the place of each tensor, and the mapped bytes behind it.

Source: https://github.com/huggingface/safetensors (README, Format).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moorage_runtime.formats.blocks import Bytes

_HEADER_LIMIT = 100 * 2**20
_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_SIZES |= {"U64": 8, "U32": 4, "U16": 2, "F8_E4M3": 1, "F8_E5M2": 1}


class SafetensorsError(ValueError):
    """The file is no safetensors file that can be read; the message says why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor: its type as the format calls it, its shape, and its bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: Bytes


def read_safetensors(path: Path) -> dict[str, Entry]:
    """All tensors of a file by name; nothing is read but the header, the tensors are mapped.

    Raises:
        SafetensorsError: cut short, or the header tells what cannot be.
        OSError: the file cannot be opened.
    """
    size = path.stat().st_size
    if size < 8:  # noqa: PLR2004 - the header's length itself
        raise SafetensorsError(f"{size} bytes are no safetensors file")
    # Copy on write: a tensor over read-only memory is not what torch expects. Nobody writes.
    mapped = np.memmap(path, np.uint8, mode="c")
    length = int.from_bytes(mapped[:8].tobytes(), "little")
    if length > min(size - 8, _HEADER_LIMIT):
        raise SafetensorsError(f"a header of {length} bytes is not in a file of {size}")
    header = _header(mapped[8 : 8 + length].tobytes())
    return _entries(header, mapped[8 + length :].view(np.ndarray))


def _header(text: bytes) -> Mapping[str, Any]:
    try:
        header = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise SafetensorsError(f"the header is no JSON: {error}") from error
    if not isinstance(header, dict):
        raise SafetensorsError("the header is no object")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise SafetensorsError("the header names a tensor twice")
    return found


def _entries(header: Mapping[str, Any], data: Bytes) -> dict[str, Entry]:
    entries, spans = {}, []
    for name, told in header.items():
        if name == "__metadata__":
            continue
        dtype, shape, begin, end = _told(name, told)
        if not 0 <= begin <= end <= len(data):
            raise SafetensorsError(f"tensor {name!r} is at {begin} to {end} of {len(data)} bytes")
        if math.prod(shape) * _SIZES[dtype] != end - begin:
            raise SafetensorsError(f"tensor {name!r}, {dtype} {list(shape)}, has {end - begin} bytes")
        entries[name] = Entry(dtype, shape, data[begin:end])
        spans.append((begin, end, name))
    _refuse_overlaps(spans)
    return entries


def _told(name: str, told: Any) -> tuple[str, tuple[int, ...], int, int]:
    try:
        dtype, shape, (begin, end) = told["dtype"], tuple(told["shape"]), told["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise SafetensorsError(f"what the header says of tensor {name!r} cannot be read") from error
    if any(type(number) is not int or number < 0 for number in (*shape, begin, end)):
        raise SafetensorsError(f"tensor {name!r} has a shape or place that is no natural number")
    if not isinstance(dtype, str) or dtype not in _SIZES:
        raise SafetensorsError(f"tensor {name!r} is of the unknown type {dtype!r}")
    return dtype, shape, begin, end


def _refuse_overlaps(spans: list[tuple[int, int, str]]) -> None:
    last, before = 0, ""
    for begin, end, name in sorted(spans):
        if begin < last:
            raise SafetensorsError(f"tensors {before!r} and {name!r} overlap")
        last, before = end, name
