"""A checkpoint whose matrices are rounded to 8 or 4 bits as they are loaded."""

from dataclasses import replace
from typing import Literal

from moorage_runtime.formats.blocks import Stored
from moorage_runtime.formats.layout import FORMATS, Layout
from moorage_runtime.formats.quantize import quantize
from moorage_runtime.model.errors import UnsupportedModelError
from moorage_runtime.model.tensors import Checkpoint

Quantization = Literal["Int8", "Int4"]

_FORMATS = {"Int8": "Q8_0", "Int4": "Q4_1"}
# Every token passes through both, and 4 bits there cost more of the answer's quality than in any layer.
_ALWAYS_8_BITS = ("model.embed_tokens.weight", "lm_head.weight")


class QuantizedCheckpoint(Checkpoint):
    """Vectors, and matrices whose rows are no whole number of blocks, stay as they are."""

    def __init__(self, source: Checkpoint, quantization: Quantization, whole: Checkpoint | None = None) -> None:
        """Over `source`; where that is a part of a model, the formats are those that `whole` gets."""
        self.config = source.config
        self.source = source
        self._quantization = quantization
        self._whole = source if whole is None else whole

    def over(self, part: Checkpoint) -> "QuantizedCheckpoint":
        """A part of the source, with the bits that it has in the whole."""
        return QuantizedCheckpoint(part, self._quantization, self._whole)

    def layout(self, name: str) -> Layout | None:
        """See `Checkpoint`: nothing is rounded for it."""
        source, whole = self.source.layout(name), self._whole.layout(name)
        return None if source is None or whole is None else replace(source, format=self._wanted(name, whole))

    def _find(self, name: str) -> Stored | None:
        stored, layout = self.source.stored(name), self.layout(name)
        if stored is None or layout is None or layout.format == stored.format:
            return stored
        try:
            return quantize(stored, layout.format)
        except ValueError as error:
            raise UnsupportedModelError(f"tensor {name!r} cannot be quantised: {error}") from error

    def _wanted(self, name: str, source: Layout) -> str:
        """The format that a tensor gets."""
        if source.rows == 1:
            return source.format
        if FORMATS[source.format].block > 1:
            raise UnsupportedModelError(
                f"quantization {self._quantization} is for checkpoints that are not quantised yet; "
                f"tensor {name!r} of this one is {source.format} already"
            )
        wanted = FORMATS["Q8_0" if name in _ALWAYS_8_BITS else _FORMATS[self._quantization]]
        return source.format if source.columns % wanted.block else wanted.name
