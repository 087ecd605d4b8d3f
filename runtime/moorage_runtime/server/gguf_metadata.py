"""The key-value part of a GGUF file, without its tensors.

The `gguf` package wraps every element of every array in numpy, which takes seconds for a vocabulary; this reads the
same in a tenth of one, which is start-up time of every pod.

Source: the GGUF specification, version 2 and 3, little endian (github.com/ggml-org/ggml, docs/gguf.md).
"""

import mmap
import struct
from pathlib import Path
from typing import Any

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


class GgufError(ValueError):
    """The file is no GGUF file that can be read; the message says why."""


def read_metadata(path: Path) -> dict[str, Any]:
    """All metadata of a GGUF file by key; arrays are lists.

    Raises:
        GgufError: not GGUF, an unknown version, or cut short.
    """
    if path.stat().st_size == 0:
        raise GgufError(f"{path.name} is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return _Reader(data).metadata()
        except (struct.error, UnicodeDecodeError) as error:
            raise GgufError(f"{path.name} is cut short or damaged: {error}") from error


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0

    def metadata(self) -> dict[str, Any]:
        if self._data[:4] != MAGIC:
            raise GgufError("it does not start with 'GGUF'")
        self._at = 4
        version = self._scalar("I")
        if version not in _VERSIONS:
            raise GgufError(f"GGUF version {version} is not one of {_VERSIONS} (big-endian files are not read)")
        self._scalar("Q")  # how many tensors
        return {self._string(): self._value(self._scalar("I")) for _ in range(self._scalar("Q"))}

    def _scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self._data, self._at)
        self._at += struct.calcsize(f"<{code}")
        return value

    def _string(self) -> str:
        length = self._scalar("Q")
        end = self._at + length
        if end > len(self._data):
            raise GgufError(f"a text of {length} bytes runs over the end of the file")
        text = self._data[self._at : end].decode()
        self._at = end
        return text

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array()
        if kind not in _SCALARS:
            raise GgufError(f"unknown value type {kind}")
        return self._scalar(_SCALARS[kind])

    def _array(self) -> list[Any]:
        kind, length = self._scalar("I"), self._scalar("Q")
        if kind not in _SCALARS:
            return [self._value(kind) for _ in range(length)]
        code = f"<{length}{_SCALARS[kind]}"
        values = struct.unpack_from(code, self._data, self._at)
        self._at += struct.calcsize(code)
        return list(values)
