"""Opening a model, whatever its format. Nothing in a model is ever executed."""

from pathlib import Path

from moorage_runtime.model.errors import UnsupportedModelError
from moorage_runtime.model.gguf_file import GgufCheckpoint
from moorage_runtime.model.quantized import Quantization, QuantizedCheckpoint
from moorage_runtime.model.safetensors_file import SafetensorsCheckpoint
from moorage_runtime.model.shapes import ROPE_FACTORS
from moorage_runtime.model.tensors import Checkpoint

__all__ = ["ROPE_FACTORS", "Checkpoint", "open_checkpoint"]

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def open_checkpoint(path: Path, quantization: Quantization | None = None) -> Checkpoint:
    """The model in a folder, or in one GGUF file.

    Args:
        path: Folder or file.
        quantization: What to round matrices to as they are loaded; None leaves them as they are stored.

    Raises:
        UnsupportedModelError: no weights, weights in a format that can run code, code, or an unsupported model.
    """
    checkpoint = _open(path)
    return checkpoint if quantization is None else QuantizedCheckpoint(checkpoint, quantization)


def _open(path: Path) -> Checkpoint:
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
