"""A checkpoint whose matrices are rounded to 8 or 4 bits as they are loaded."""

from typing import Literal

from moorage_runtime.formats.blocks import FORMATS, Stored
from moorage_runtime.formats.quantize import quantize
from moorage_runtime.model.errors import UnsupportedModelError
from moorage_runtime.model.tensors import Checkpoint

Quantization = Literal["Int8", "Int4"]

_FORMATS = {"Int8": "Q8_0", "Int4": "Q4_1"}
# Every token passes through both, and 4 bits there cost more of the answer's quality than in any layer.
_ALWAYS_8_BITS = ("model.embed_tokens.weight", "lm_head.weight")


class QuantizedCheckpoint(Checkpoint):
    """Vectors, and matrices whose rows are no whole number of blocks, stay as they are."""

    def __init__(self, source: Checkpoint, quantization: Quantization) -> None:
        self.config = source.config
        self._source = source
        self._quantization = quantization

    def _find(self, name: str) -> Stored | None:
        stored = self._source.stored(name)
        if stored is None or stored.rows == 1:
            return stored
        if FORMATS[stored.format].block > 1:
            raise UnsupportedModelError(
                f"quantization {self._quantization} is for checkpoints that are not quantised yet; "
                f"tensor {name!r} of this one is {stored.format} already"
            )
        wanted = "Q8_0" if name in _ALWAYS_8_BITS else _FORMATS[self._quantization]
        if stored.columns % FORMATS[wanted].block:
            return stored
        try:
            return quantize(stored, wanted)
        except ValueError as error:
            raise UnsupportedModelError(f"tensor {name!r} cannot be quantised: {error}") from error
