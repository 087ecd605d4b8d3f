"""Reading blocks: the bits are those of the reference, whatever bits a block has."""

import gguf
import numpy as np
import pytest

from moorage_runtime.formats.blocks import Stored
from moorage_runtime.formats.dequantize import dequantize
from moorage_runtime.formats.layout import FORMATS

QUANTIZED = [name for name, form in FORMATS.items() if form.block > 1]


def any_bits(name, rows, columns):
    """Rows of blocks of any bits; a scale may be infinite, or no number at all."""
    chance = np.random.default_rng(sum(name.encode()))
    return chance.integers(0, 256, (rows, FORMATS[name].row_bytes(columns)), np.uint8)


@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.parametrize(("rows", "columns"), [(1, 256), (3, 768), (1100, 256)])
def test_bits_are_those_of_the_reference(name, rows, columns):
    data = any_bits(name, rows, columns)
    with np.errstate(invalid="ignore", over="ignore"):
        expected = gguf.dequantize(data, gguf.GGMLQuantizationType[name])
        found = dequantize(Stored(name, rows, columns, data))
    assert (found.shape, found.dtype) == ((rows, columns), np.float32)
    numbers = ~np.isnan(expected)
    assert numbers.any()
    assert np.array_equal(np.isnan(found), ~numbers)
    assert np.array_equal(found.view(np.uint32)[numbers], expected.view(np.uint32)[numbers])
