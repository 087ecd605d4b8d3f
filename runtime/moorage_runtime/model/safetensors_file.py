"""A folder as `save_pretrained` writes it: `config.json` and one or more `.safetensors` files."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from moorage_runtime.formats.blocks import Stored, as_float32
from moorage_runtime.formats.layout import FORMATS
from moorage_runtime.formats.safetensors import Entry, SafetensorsError, read_safetensors
from moorage_runtime.model.config import from_hugging_face
from moorage_runtime.model.errors import UnsupportedModelError
from moorage_runtime.model.tensors import Checkpoint

_FLOATS = ("F32", "BF16", "F16")


class SafetensorsCheckpoint(Checkpoint):
    """Matrices are mapped, not copied, in the type that they have."""

    def __init__(self, folder: Path) -> None:
        self.config = from_hugging_face(_json(folder / "config.json"), _json(folder / "generation_config.json", {}))
        self._entries: dict[str, Entry] = {}
        for file in sorted(folder.glob("*.safetensors")):
            self._entries |= _read(file)

    def _find(self, name: str) -> Stored | None:
        entry = self._entries.get(name)
        if entry is None:
            return None
        if entry.dtype not in _FLOATS:
            raise UnsupportedModelError(f"tensor {name!r} is {entry.dtype}; supported are {', '.join(_FLOATS)}")
        if len(entry.shape) <= 1:
            values = as_float32(entry.dtype, entry.data)
            return Stored("F32", 1, len(values), values.view(np.uint8).reshape(1, -1))
        rows, columns = math.prod(entry.shape[:-1]), entry.shape[-1]
        return Stored(entry.dtype, rows, columns, entry.data.reshape(rows, columns * FORMATS[entry.dtype].size))


def _read(file: Path) -> dict[str, Entry]:
    try:
        return read_safetensors(file)
    except (SafetensorsError, OSError) as error:
        raise UnsupportedModelError(f"{file.name} cannot be read: {error}") from error


def _json(path: Path, default: dict[str, Any] | None = None) -> dict[str, Any]:
    if default is not None and not path.is_file():
        return default
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UnsupportedModelError(f"{path.name} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise UnsupportedModelError(f"{path.name} is not an object")
    return value
