"""Which model a folder or file holds, told in a moment: ranks that hold different ones must not compute together."""

import hashlib
import json
from pathlib import Path

_PIECES = 64
_PIECE = 16 * 2**10
_WEIGHTS = (".safetensors", ".gguf")
_FETCHED = ".moorage.json"
"""Left by `moorage-fetch`: what it has verified."""


def fingerprint(model: Path) -> str:
    """Of every file with weights, and of `config.json`, the size and pieces all over it, hashed.

    Where `moorage-fetch` has verified the files, its digest of all of their bytes counts, too. Pieces are enough to
    tell models apart: training changes all of a tensor.
    """
    digest = hashlib.sha256()
    for file in sorted(model.iterdir()) if model.is_dir() else [model]:
        if file.suffix in _WEIGHTS or file.name == "config.json":
            _add(digest, file)
        if file.name == _FETCHED:
            digest.update(json.loads(file.read_bytes())["digest"].encode())
    return digest.hexdigest()


def _add(digest: "hashlib._Hash", file: Path) -> None:
    size = file.stat().st_size
    digest.update(f"{file.name}\0{size}\0".encode())
    with file.open("rb") as opened:
        for piece in range(_PIECES):
            opened.seek(piece * max(0, size - _PIECE) // (_PIECES - 1))
            digest.update(opened.read(_PIECE))
