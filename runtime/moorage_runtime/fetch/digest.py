"""The digest of a model: the same for the same files, wherever they came from."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, order=True)
class FileDigest:
    """One file of a model: its name, bytes, and SHA-256 in hex."""

    name: str
    size: int
    sha256: str


def digest_file(path: Path, name: str) -> FileDigest:
    """Read and hash one file."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return FileDigest(name, path.stat().st_size, sha256)


def digest_model(files: Iterable[FileDigest]) -> str:
    """`sha256:` and the hash over one line per file, sorted by name."""
    lines = (f"{file.name}\0{file.size}\0{file.sha256}\n" for file in sorted(files))
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()
