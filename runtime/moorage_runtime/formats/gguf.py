"""A GGUF file: metadata, and where its tensors lie, mapped instead of read.

Values are decoded when they are asked for: a vocabulary is a hundred thousand small strings, which only the API process
wants. That one does without numpy, so this module does. What could mislead a reader in a damaged file (counts, lengths,
types, places) is checked when it is opened, and where a tensor ends when it is read.

Source: the GGUF specification, version 2 and 3, little endian (github.com/ggml-org/ggml, docs/gguf.md).
"""

import math
import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moorage_runtime.formats.layout import FORMATS

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT = 32
_MAX_DIMENSIONS = 4
_STRING, _ARRAY = 8, 9
_SCALARS = {
    kind: struct.Struct(f"<{code}")
    for kind, code in {
        0: "B",
        1: "b",
        2: "H",
        3: "h",
        4: "I",
        5: "i",
        6: "f",
        7: "?",
        10: "Q",
        11: "q",
        12: "d",
    }.items()
}
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
# `ggml_type`: the types that the engine does not compute are known by name, to be refused by name.
_TYPES = {
    **dict(enumerate(("F32", "F16", "Q4_0", "Q4_1", "Q4_2", "Q4_3", "Q5_0", "Q5_1", "Q8_0", "Q8_1", "Q2_K", "Q3_K"))),
    **dict(enumerate(("Q4_K", "Q5_K", "Q6_K", "Q8_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL"), 12)),
    **dict(enumerate(("IQ3_S", "IQ2_S", "IQ4_XS", "I8", "I16", "I32", "I64", "F64", "IQ1_M", "BF16"), 21)),
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
    40: "NVFP4",
}


class GgufError(ValueError):
    """The file is no GGUF file that can be read; the message says why."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One entry of the tensor table."""

    name: str
    type: str
    """One of `FORMATS`, or another name of ggml's, or `type N`."""
    shape: tuple[int, ...]
    """Outermost first, as in numpy (the file has it the other way)."""
    offset: int
    """Bytes from the start of the file."""


class GgufFile:
    """An open file. `metadata` is decoded on access; `tensors` by name."""

    def __init__(self, path: Path) -> None:
        """Map the file and walk its header.

        Raises:
            GgufError: not GGUF, an unknown version, cut short, or damaged.
            OSError: the file cannot be opened.
        """
        self.name = path.name
        if path.stat().st_size == 0:
            raise GgufError(f"{path.name} is empty")
        with path.open("rb") as file:
            # Copy on write: a tensor over read-only memory is not what torch expects. Nobody writes.
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        try:
            self._open()
        except (struct.error, OverflowError, UnicodeDecodeError) as error:
            raise GgufError(f"{path.name} is cut short or damaged: {error}") from error

    def _open(self) -> None:
        cursor = _Cursor(self._map)
        if self._map[:4] != _MAGIC:
            raise GgufError("it does not start with 'GGUF'")
        cursor.at = 4
        version = cursor.scalar(_U32)
        if version not in _VERSIONS:
            raise GgufError(f"GGUF version {version} is not one of {_VERSIONS} (big-endian files are not read)")
        tensors, values = cursor.scalar(_U64), cursor.scalar(_U64)
        self.metadata = _Metadata(cursor, values)
        alignment = self.metadata.get("general.alignment", _ALIGNMENT)
        if not isinstance(alignment, int) or alignment <= 0 or alignment % 8:
            raise GgufError(f"an alignment of {alignment!r} bytes is no multiple of 8")
        self.tensors = _tensor_table(cursor, tensors, alignment)

    def data(self, info: TensorInfo) -> memoryview:
        """The tensor's bytes, in the mapped file.

        Raises:
            GgufError: a type that is not one of `FORMATS`, or the bytes are not all there.
        """
        if info.type not in FORMATS:
            raise GgufError(f"tensor {info.name!r} is {info.type}; supported are {', '.join(FORMATS)}")
        try:
            size = math.prod(info.shape[:-1]) * FORMATS[info.type].row_bytes(info.shape[-1])
        except ValueError as error:
            raise GgufError(f"tensor {info.name!r}: {error}") from error
        if info.offset + size > len(self._map):
            raise GgufError(
                f"tensor {info.name!r}: its {size} bytes at {info.offset} end outside of the file ({len(self._map)})"
            )
        return memoryview(self._map)[info.offset : info.offset + size]


def read_metadata(path: Path) -> dict[str, Any]:
    """All metadata of a GGUF file by key; arrays are lists.

    Raises:
        GgufError: not GGUF, an unknown version, cut short, or damaged.
        OSError: the file cannot be opened.
    """
    return dict(GgufFile(path).metadata)


class _Cursor:
    """A place in the file. `struct.error` when it leaves it."""

    def __init__(self, data: mmap.mmap, at: int = 0) -> None:
        self.data = data
        self.at = at

    def scalar(self, kind: struct.Struct) -> Any:
        (value,) = kind.unpack_from(self.data, self.at)
        self.at += kind.size
        return value

    def text(self) -> str:
        length = self.scalar(_U64)
        begin = self.skip(length)
        return self.data[begin : self.at].decode()

    def skip(self, length: int) -> int:
        """Move on by so many bytes; where they begin."""
        begin = self.at
        if length > len(self.data) - begin:
            raise GgufError(f"{length} bytes at {begin} run over the end of the file")
        self.at += length
        return begin

    def skip_texts(self, count: int) -> None:
        """As `texts`, without making them. Both are loops over a whole vocabulary, so they are written out."""
        if count > (len(self.data) - self.at) // _U64.size:
            raise GgufError(f"{count} texts at {self.at} run over the end of the file")
        unpack, data, at = _U64.unpack_from, self.data, self.at
        for _ in range(count):
            at += 8 + unpack(data, at)[0]
        self.at = at
        self.skip(0)

    def texts(self, count: int) -> list[str]:
        """So many texts, which have been skipped once: none runs over the end of the file."""
        unpack, data, at = _U64.unpack_from, self.data, self.at
        found = []
        for _ in range(count):
            begin = at + 8
            at = begin + unpack(data, at)[0]
            found.append(data[begin:at].decode())
        self.at = at
        return found

    def skip_value(self, kind: int) -> None:
        if kind == _STRING:
            self.skip_texts(1)
        elif kind == _ARRAY:
            inner, count = self.scalar(_U32), self.scalar(_U64)
            if inner == _STRING:
                self.skip_texts(count)
            else:
                self.skip(_scalar(inner).size * count)
        else:
            self.skip(_scalar(kind).size)

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self.array()
        return self.scalar(_scalar(kind))

    def array(self) -> list[Any]:
        kind, count = self.scalar(_U32), self.scalar(_U64)
        if kind == _STRING:
            return self.texts(count)
        item = _scalar(kind)
        begin = self.skip(item.size * count)
        return [value for (value,) in item.iter_unpack(self.data[begin : self.at])]


def _scalar(kind: int) -> struct.Struct:
    if kind not in _SCALARS:
        raise GgufError(f"value type {kind} is not read" + (" (an array of arrays)" if kind == _ARRAY else ""))
    return _SCALARS[kind]


class _Metadata(Mapping[str, Any]):
    """Keys and where their values lie."""

    def __init__(self, cursor: _Cursor, count: int) -> None:
        self._data = cursor.data
        self._places: dict[str, tuple[int, int]] = {}
        for _ in range(count):
            key, kind = cursor.text(), cursor.scalar(_U32)
            if key in self._places:
                raise GgufError(f"metadata {key!r} is there twice")
            self._places[key] = (kind, cursor.at)
            cursor.skip_value(kind)

    def __getitem__(self, key: str) -> Any:
        kind, at = self._places[key]
        try:
            return _Cursor(self._data, at).value(kind)
        except UnicodeDecodeError as error:
            raise GgufError(f"metadata {key!r} is no text: {error}") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _tensor_table(cursor: _Cursor, count: int, alignment: int) -> dict[str, TensorInfo]:
    table: dict[str, TensorInfo] = {}
    entries = [_tensor_entry(cursor) for _ in range(count)]
    base = -(-cursor.at // alignment) * alignment
    for name, kind, shape, offset in entries:
        if name in table:
            raise GgufError(f"tensor {name!r} is there twice")
        if offset % alignment or base + offset > len(cursor.data):
            raise GgufError(f"tensor {name!r} is at {offset}, which is no place for it (aligned to {alignment})")
        table[name] = TensorInfo(name, _TYPES.get(kind, f"type {kind}"), shape, base + offset)
    return table


def _tensor_entry(cursor: _Cursor) -> tuple[str, int, tuple[int, ...], int]:
    name, dimensions = cursor.text(), cursor.scalar(_U32)
    if not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise GgufError(f"tensor {name!r} has {dimensions} dimensions; 1 to {_MAX_DIMENSIONS} are read")
    shape = tuple(cursor.scalar(_U64) for _ in range(dimensions))
    if 0 in shape:
        raise GgufError(f"tensor {name!r} is empty: {list(shape)}")
    return name, cursor.scalar(_U32), shape[::-1], cursor.scalar(_U64)
