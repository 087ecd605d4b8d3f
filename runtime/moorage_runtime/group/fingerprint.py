"""Which model a folder or file holds, told in a moment: ranks that hold different ones must not compute together."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import msgspec

from moorage_runtime.formats.gguf import GgufError, GgufFile
from moorage_runtime.formats.safetensors import read_safetensors

_PIECE = 1024
_FETCHED = ".moorage.json"
"""Left by `moorage-fetch`: what it has verified."""


class Fingerprint(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a model's bytes."""

    sample: str
    """Of `config.json`, and of every tensor its name, type, shape and the bytes at its beginning, middle and end."""
    digest: str = ""
    """Of all bytes, where `moorage-fetch` has brought and verified them."""

    def may_be(self, other: "Fingerprint") -> bool:
        """Whether nothing speaks against it that both are the same model."""
        unknown = not self.digest or not other.digest
        return self.sample == other.sample and (unknown or self.digest == other.digest)


def fingerprint(model: Path) -> Fingerprint:
    """Of a model that can be opened.

    A piece of every tensor tells models apart: training changes all of a tensor, though perhaps of few tensors. Only
    where single rows were edited it takes the digest to see it.

    Raises:
        GgufError, SafetensorsError: the file is damaged.
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    folder = model if model.is_dir() else model.parent
    if model.is_dir() and (config := model / "config.json").is_file():
        digest.update(config.read_bytes())
    for file in _weights(model):
        for told, data in _tensors(file):
            middle = max(0, len(data) - _PIECE) // 2
            digest.update(f"{told}\0".encode())
            for piece in (data[:_PIECE], data[middle : middle + _PIECE], data[-_PIECE:]):
                digest.update(piece)
    return Fingerprint(digest.hexdigest(), _verified(folder / _FETCHED))


def _weights(model: Path) -> list[Path]:
    """The files that are loaded: a folder with both kinds is one of safetensors."""
    if not model.is_dir():
        return [model]
    return sorted(model.glob("*.safetensors")) or sorted(model.glob("*.gguf"))


def _tensors(file: Path) -> Iterator[tuple[str, memoryview]]:
    """Each tensor: what is told of it, and its bytes, which are mapped."""
    if file.suffix == ".gguf":
        opened = GgufFile(file)
        for _, info in sorted(opened.tensors.items()):
            yield f"{info.name} {info.type} {info.shape}", _data(opened, info.name)
        return
    for name, entry in sorted(read_safetensors(file).items()):
        yield f"{name} {entry.dtype} {entry.shape}", entry.data.data


def _data(opened: GgufFile, name: str) -> memoryview:
    """Empty for types that are not computed: a model that needs such a tensor is refused anyway."""
    try:
        return opened.data(opened.tensors[name])
    except GgufError:
        return memoryview(b"")


def _verified(marker: Path) -> str:
    """The digest, or nothing where none is told: whoever put the files there has not verified them."""
    try:
        told = json.loads(marker.read_bytes())
    except (OSError, ValueError):
        return ""
    digest = told.get("digest") if isinstance(told, dict) else None
    return digest if isinstance(digest, str) else ""
