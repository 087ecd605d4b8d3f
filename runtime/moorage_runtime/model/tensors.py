"""The tensors of a model by their Hugging Face names, as they are stored, and dequantised for torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from moorage_runtime.formats.dequantize import dequantize
from moorage_runtime.formats.layout import Layout
from moorage_runtime.model.errors import UnsupportedModelError
from moorage_runtime.model.shapes import shape_of

if TYPE_CHECKING:
    from torch import Tensor

    from moorage_runtime.formats.blocks import Stored
    from moorage_runtime.model.config import ModelConfig


class Checkpoint(ABC):
    """What the model room reads of a model."""

    config: ModelConfig

    def stored(self, name: str) -> Stored | None:
        """A tensor as the file has it, for our own kernels; None when there is none of that name.

        Vectors come as F32. Llama's permutation of query and key rows in GGUF is undone: the order of rows is that of
        Hugging Face. The bits depend on the checkpoint and the quantisation asked for, on nothing else.

        Raises:
            UnsupportedModelError: it is of a type that is not computed, of a shape that the config does not tell, or
                the file is damaged there.
        """
        found = self._find(name)
        if found is not None and (found.rows, found.columns) != (wanted := shape_of(self.config, name)):
            shape = (found.rows, found.columns)
            raise UnsupportedModelError(f"tensor {name!r} is {shape}; its config tells {wanted}")
        return found

    def layout(self, name: str) -> Layout | None:
        """What `stored` gives but the data, which it makes first where matrices are quantised at load.

        Raises:
            UnsupportedModelError: as `stored`.
        """
        stored = self.stored(name)
        return None if stored is None else Layout(stored.format, stored.rows, stored.columns)

    @abstractmethod
    def _find(self, name: str) -> Stored | None:
        """As `stored`, of any shape."""

    def tensor(self, name: str) -> Tensor:
        """The same numbers for torch: float32, bfloat16 or float16 as stored, float32 from quantised blocks.

        Raises:
            UnsupportedModelError: there is none of that name, or `stored` cannot give it.
        """
        tensor = self.optional(name)
        if tensor is None:
            raise UnsupportedModelError(f"the model has no tensor {name!r}")
        return tensor

    def optional(self, name: str) -> Tensor | None:
        """As `tensor`; None when there is none of that name."""
        stored = self.stored(name)
        if stored is None:
            return None
        matrix = _dense(stored)
        return matrix[0] if stored.rows == 1 else matrix


def _dense(stored: Stored) -> Tensor:
    import torch  # noqa: PLC0415 - our own kernels start without torch, which takes seconds to load

    plain = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
    if stored.format in plain:
        # A copy, so that nothing holds the mapped file, whose pages would count as this process's memory.
        return torch.from_numpy(stored.data).view(plain[stored.format]).clone()
    return torch.from_numpy(dequantize(stored))
