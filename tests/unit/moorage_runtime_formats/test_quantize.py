"""Rounding to blocks: the layout is GGUF's, the numbers are near, and the bits are always the same."""

import gguf
import numpy as np
import pytest

from moorage_runtime.formats.blocks import Stored
from moorage_runtime.formats.layout import FORMATS
from moorage_runtime.formats.quantize import quantize

ROWS, COLUMNS = 300, 288


def matrix(seed=0):
    return (np.random.default_rng(seed).standard_normal((ROWS, COLUMNS)) * 0.02).astype(np.float32)


def stored(values):
    return Stored("F32", *values.shape, values.view(np.uint8))


def as_bf16(values):
    return np.ascontiguousarray(values).view(np.uint16)[:, 1::2]


def numbers(quantized):
    return gguf.dequantize(quantized.data, gguf.GGMLQuantizationType[quantized.format])


@pytest.mark.parametrize("name", ["Q8_0", "Q4_1"])
def test_the_error_is_no_greater_than_that_of_the_reference(name):
    values = matrix()
    ours = quantize(stored(values), name)
    theirs = gguf.dequantize(gguf.quantize(values, gguf.GGMLQuantizationType[name]), gguf.GGMLQuantizationType[name])
    assert (ours.format, ours.rows, ours.columns) == (name, ROWS, COLUMNS)
    assert ours.data.shape == (ROWS, COLUMNS // 32 * FORMATS[name].size)
    assert ((numbers(ours) - values) ** 2).mean() <= ((theirs - values) ** 2).mean()


@pytest.mark.parametrize(("name", "share"), [("Q8_0", 0.51 / 127), ("Q4_1", 0.9 / 15)])
def test_every_number_is_near(name, share):
    values = matrix()
    largest = np.abs(values.reshape(-1, 32)).max(1) if name == "Q8_0" else np.ptp(values.reshape(-1, 32), axis=1)
    error = np.abs(numbers(quantize(stored(values), name)) - values).reshape(-1, 32).max(1)
    assert (error <= share * largest + 1e-7).all()


@pytest.mark.parametrize("name", ["Q8_0", "Q4_1"])
def test_bits_do_not_depend_on_the_rows_beside(name):
    values = matrix()
    whole = quantize(stored(values), name).data
    for first, last in ((0, 1), (17, 40), (299, 300)):
        assert np.array_equal(quantize(stored(values[first:last]), name).data, whole[first:last])


def test_bf16_and_f16_are_read_as_what_they_are():
    values = (matrix().view(np.uint32) & 0xFFFF0000).view(np.float32)
    upper = np.ascontiguousarray(as_bf16(values))
    for name in ("Q8_0", "Q4_1"):
        from_bf16 = quantize(Stored("BF16", ROWS, COLUMNS, upper.view(np.uint8)), name)
        assert np.array_equal(from_bf16.data, quantize(stored(values), name).data)
        half = matrix(1).astype(np.float16)
        from_f16 = quantize(Stored("F16", ROWS, COLUMNS, half.view(np.uint8)), name)
        assert np.array_equal(from_f16.data, quantize(stored(half.astype(np.float32)), name).data)


@pytest.mark.parametrize("name", ["Q8_0", "Q4_1"])
def test_blocks_of_one_number_keep_it(name):
    values = np.repeat(np.float32([[0.0], [0.5], [-3.0]]), 32, axis=1)
    assert numbers(quantize(stored(values), name)) == pytest.approx(values, rel=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("name", ["Q8_0", "Q4_1"])
def test_what_a_block_cannot_hold_is_refused(name, bad):
    values = matrix()
    values[7, 5] = bad
    with pytest.raises(ValueError, match=f"numbers that {name} does not hold"):
        quantize(stored(values), name)


def test_a_row_of_parts_of_blocks_is_refused():
    with pytest.raises(ValueError, match="a row of 33 numbers is no whole number of Q4_1 blocks of 32"):
        quantize(stored(np.zeros((2, 33), np.float32)), "Q4_1")
