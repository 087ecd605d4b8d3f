"""A model on disk: its shape and its tensors, whatever the format. Nothing in a model is ever executed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from moorage_runtime.model.config import ModelConfig, from_hugging_face
from moorage_runtime.model.errors import UnsupportedModelError
from moorage_runtime.model.gguf_file import GgufCheckpoint

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_FLOATS = (torch.float32, torch.bfloat16, torch.float16)


class Checkpoint(Protocol):
    """What the model room reads of a model. Tensors go by their Hugging Face names."""

    config: ModelConfig

    def tensor(self, name: str) -> Tensor:
        """A floating point tensor; `UnsupportedModelError` when there is none of that name."""
        ...

    def optional(self, name: str) -> Tensor | None:
        """As `tensor`; None when there is none of that name."""
        ...


class SafetensorsCheckpoint:
    """A folder as `save_pretrained` writes it: `config.json` and one or more `.safetensors` files."""

    def __init__(self, folder: Path) -> None:
        self.config = from_hugging_face(_json(folder / "config.json"), _json(folder / "generation_config.json", {}))
        self._files = {name: file for file in sorted(folder.glob("*.safetensors")) for name in _names(file)}

    def tensor(self, name: str) -> Tensor:
        """See `Checkpoint`."""
        tensor = self.optional(name)
        if tensor is None:
            raise UnsupportedModelError(f"the safetensors files have no tensor {name!r}")
        return tensor

    def optional(self, name: str) -> Tensor | None:
        """See `Checkpoint`."""
        if name not in self._files:
            return None
        with safe_open(self._files[name], framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        if tensor.dtype not in _FLOATS:
            raise UnsupportedModelError(f"tensor {name!r} is {tensor.dtype}; supported are float32, bfloat16, float16")
        return tensor


def open_checkpoint(path: Path) -> Checkpoint:
    """The model in a folder, or in one GGUF file.

    Raises:
        UnsupportedModelError: no weights, weights in a format that can run code, code, or an unsupported model.
    """
    if path.is_file():
        return GgufCheckpoint(path)
    if not path.is_dir():
        raise UnsupportedModelError(f"there is no model at {path}")
    _refuse_code(path)
    if any(path.glob("*.safetensors")):
        return SafetensorsCheckpoint(path)
    files = sorted(path.glob("*.gguf"))
    if len(files) > 1:
        raise UnsupportedModelError(f"{len(files)} GGUF files: {', '.join(file.name for file in files)}; keep one")
    if not files:
        raise UnsupportedModelError(_no_weights(path))
    return GgufCheckpoint(files[0])


def _refuse_code(folder: Path) -> None:
    if code := sorted(file.name for file in folder.rglob("*.py")):
        raise UnsupportedModelError(f"the model brings code ({code[0]}), which is never run")


def _no_weights(folder: Path) -> str:
    if pickles := sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLES):
        return f"{pickles[0]} is a pickle, which can run code when it is read; convert the model to safetensors"
    return "the model has neither .safetensors nor .gguf files"


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


def _names(file: Path) -> Iterator[str]:
    try:
        with safe_open(file, framework="pt") as tensors:
            yield from tensors.keys()
    except (SafetensorError, OSError) as error:
        raise UnsupportedModelError(f"{file.name} cannot be read: {error}") from error
