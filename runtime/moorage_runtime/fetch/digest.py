"""The digest of a model: the same for the same files, wherever they came from."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

_PIECE: Final = 2**20


@dataclass(frozen=True, order=True)
class FileDigest:
    """One file of a model: its name, bytes, and SHA-256 in hex."""

    name: str
    size: int
    sha256: str


def digest_file(path: Path, name: str) -> FileDigest:
    """Read and hash one file."""
    with path.open("rb") as file:
        return digest_stream(file, name, path.stat().st_size)


def digest_stream(content: IO[bytes], name: str, size: int) -> FileDigest:
    """Read and hash what is open for reading, `size` bytes."""
    sha256 = hashlib.sha256()
    while piece := content.read(_PIECE):
        sha256.update(piece)
    return FileDigest(name, size, sha256.hexdigest())


def digest_model(files: Iterable[FileDigest]) -> str:
    """`sha256:` and the hash over one line per file, sorted by name."""
    lines = (f"{file.name}\0{file.size}\0{file.sha256}\n" for file in sorted(files))
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()
