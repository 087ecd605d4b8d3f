"""How the numbers of a tensor are laid out: formats by the names that GGUF gives them.

A matrix is stored row by row, and each row is a whole number of blocks.

Source: `ggml_type` and the `block_*` structures of ggml (github.com/ggml-org/ggml, src/ggml-common.h).
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Format:
    """How numbers are laid out: `block` of them in `size` bytes."""

    name: str
    block: int
    size: int

    def row_bytes(self, columns: int) -> int:
        """Bytes of a row of so many numbers.

        Raises:
            ValueError: a row is no whole number of blocks.
        """
        if columns % self.block:
            raise ValueError(f"a row of {columns} numbers is no whole number of {self.name} blocks of {self.block}")
        return columns // self.block * self.size


FORMATS: Mapping[str, Format] = {
    name: Format(name, block, size)
    for name, block, size in (
        ("F32", 1, 4),
        ("F16", 1, 2),
        ("BF16", 1, 2),
        ("Q4_0", 32, 18),
        ("Q4_1", 32, 20),
        ("Q5_0", 32, 22),
        ("Q5_1", 32, 24),
        ("Q8_0", 32, 34),
        ("Q2_K", 256, 84),
        ("Q3_K", 256, 110),
        ("Q4_K", 256, 144),
        ("Q5_K", 256, 176),
        ("Q6_K", 256, 210),
    )
}
"""What the engine computes with."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a tensor is, without its numbers: the fields are those of `Stored`."""

    format: str
    rows: int
    columns: int
