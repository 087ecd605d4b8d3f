"""Packed matrices and their products against gguf's and numpy's arithmetic, on every path that this machine has."""

import ctypes
from collections.abc import Callable, Iterator
from ctypes import c_char_p, c_int32, c_uint64, c_void_p
from typing import Any

import gguf
import numpy as np
import pytest

from moorage_runtime.kernels.build import LIBRARY, NoCompilerError, build
from moorage_runtime.kernels.library import FORMATS

PATHS = ("amx", "avx512", "avxvnni", "avx2", "neon", "scalar")
FLOATS = ("F32", "F16", "BF16")
ONE_LEVEL = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
K_QUANTS = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
SCALES = {
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q5_0": (0,),
    "Q5_1": (0, 2),
    "Q8_0": (0,),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
}
"""Where a block's halves are."""
SHAPES = {
    # Outputs beside whole strips of 16 and tiles of them; inputs beside whole groups where the format allows that.
    **dict.fromkeys(FLOATS, ((1, 1), (17, 33), (33, 77), (200, 576))),
    **dict.fromkeys(ONE_LEVEL, ((1, 32), (17, 96), (200, 576), (96, 1568))),
    **dict.fromkeys(K_QUANTS, ((1, 256), (33, 1280), (200, 768))),
}
CASES = [(name, *shape) for name in SHAPES for shape in SHAPES[name]]

_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "matrix_pack": (c_void_p, (c_int32, c_int32, c_int32, c_void_p)),
    "matrix_free": (None, (c_void_p,)),
    "matrix_bytes": (c_uint64, (c_void_p,)),
    "matrix_row_bytes": (c_uint64, (c_int32, c_int32)),
    "matrix_row": (None, (c_void_p, c_int32, c_void_p)),
    "matrix_tiles": (c_int32, (c_void_p,)),
    "operand_make": (c_void_p, (c_void_p, c_void_p, c_int32)),
    "operand_free": (None, (c_void_p,)),
    "matrix_multiply": (None, (c_void_p, c_void_p, *(c_int32,) * 4, c_void_p, c_void_p, c_int32)),
    "kernels_select": (c_int32, (c_char_p,)),
    "kernels_path": (c_char_p, ()),
}


@pytest.fixture(scope="module")
def doors() -> dict[str, Callable]:
    try:
        build()
    except NoCompilerError as reason:
        pytest.skip(str(reason))
    library = ctypes.CDLL(str(LIBRARY))
    functions = {name: getattr(library, f"moorage_{name}") for name in _FUNCTIONS}
    for name, (result, arguments) in _FUNCTIONS.items():
        functions[name].restype, functions[name].argtypes = result, arguments
    return functions


@pytest.fixture(autouse=True)
def best_path(doors) -> Iterator[None]:
    """Whatever a test selects, the next one starts from the machine's best."""
    yield
    select(doors, PATHS[0])


def select(doors, path: str) -> bool:
    """Whether the machine has this very path; else the best below it is taken."""
    assert doors["kernels_select"](path.encode()) == 1 or path not in here(doors)
    return doors["kernels_path"]() == path.encode()


def here(doors) -> tuple[str, ...]:
    """What this build knows, best first."""
    return tuple(path for path in PATHS if doors["kernels_select"](path.encode()))


def paths(doors) -> tuple[str, ...]:
    """What this machine can execute, best first; plain C++ at the end."""
    found = tuple(path for path in here(doors) if select(doors, path))
    assert found[-1] == "scalar"
    return found


def checkpoint(name: str, n: int, k: int, seed: int = 0) -> np.ndarray:
    """Any codes, sensible scales: n rows as a file has them."""
    random = np.random.default_rng(seed)
    if name == "F32":
        return random.standard_normal((n, k), np.float32).view(np.uint8)
    if name == "F16":
        return random.standard_normal((n, k)).astype(np.float16).view(np.uint8)
    if name == "BF16":
        return (random.standard_normal((n, k), np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    inputs, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    blocks = random.integers(0, 256, (n, k // inputs, size), dtype=np.uint8)
    for at in SCALES[name]:
        halves = random.uniform(-0.02, 0.02, (n, k // inputs, 1)).astype(np.float16)
        blocks[:, :, at : at + 2] = halves.view(np.uint8)
    return np.ascontiguousarray(blocks.reshape(n, -1))


def dequantised(name: str, rows: np.ndarray) -> np.ndarray:
    return gguf.dequantize(rows, gguf.GGMLQuantizationType[name]).astype(np.float32)


class Matrix:
    """A packed matrix, multiplied as the engine's threads do it."""

    def __init__(self, doors, name: str, n: int, k: int, rows: np.ndarray) -> None:
        self._doors = doors
        self.n, self.k = n, k
        self._handle = doors["matrix_pack"](FORMATS[name], n, k, rows.ctypes.data)
        assert self._handle

    def __del__(self) -> None:
        self._doors["matrix_free"](self._handle)

    @property
    def bytes(self) -> int:
        return self._doors["matrix_bytes"](self._handle)

    def row(self, index: int) -> np.ndarray:
        out = np.empty(self.k, np.float32)
        self._doors["matrix_row"](self._handle, index, out.ctypes.data)
        return out

    def times(self, x: np.ndarray, ranges=None, *, backwards=False, bias=None, onto=None) -> np.ndarray:
        """`x W^T (+ bias) (+ onto)`, the ranges of rows and the tiles in any order."""
        x = np.ascontiguousarray(x, np.float32)
        out = np.full((len(x), self.n), np.nan, np.float32) if onto is None else onto.copy()
        operand = self._doors["operand_make"](self._handle, x.ctypes.data, len(x))
        assert operand
        tiles = range(self._doors["matrix_tiles"](self._handle))
        for begin, end in ranges or [(0, len(x))]:
            for tile in reversed(tiles) if backwards else tiles:
                self._doors["matrix_multiply"](
                    self._handle,
                    operand,
                    len(x),
                    begin,
                    end,
                    tile,
                    out.ctypes.data,
                    None if bias is None else bias.ctypes.data,
                    onto is not None,
                )
        self._doors["operand_free"](operand)
        return out


def packed(doors, name: str, n: int, k: int) -> tuple[Matrix, np.ndarray]:
    rows = checkpoint(name, n, k)
    return Matrix(doors, name, n, k, rows), dequantised(name, rows).reshape(n, k)


def activations(rows: int, k: int) -> np.ndarray:
    """With a few values that are far from the others, as models have them."""
    random = np.random.default_rng(1)
    x = random.standard_normal((rows, k), np.float32)
    x[:, random.integers(0, k, max(1, k // 50))] *= 30
    return x


def eight_bit(x: np.ndarray) -> np.ndarray:
    """What 8-bit codes with a scale per row and 32 values keep of x."""
    groups = x.reshape(len(x), -1, 32).astype(np.float64)
    scale = np.maximum(np.abs(groups).max(-1, keepdims=True), 1e-30) / 127
    return (np.rint(groups / scale) * scale).reshape(x.shape)


@pytest.mark.parametrize(("name", "n", "k"), CASES)
def test_a_row_is_bit_for_bit_what_the_checkpoint_holds(doors, name, n, k):
    matrix, weights = packed(doors, name, n, k)
    for index in {0, n // 2, n - 1}:
        np.testing.assert_array_equal(matrix.row(index), weights[index])


@pytest.mark.parametrize(("name", "n", "k"), CASES)
def test_products_are_right_on_every_path(doors, name, n, k):
    matrix, weights = packed(doors, name, n, k)
    x = activations(21, k)
    seen = x.astype(np.float64) if name in FLOATS else eight_bit(x)
    if name == "BF16":
        bits = x.view(np.uint32)
        seen = ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32).astype(np.float64)
    expected = seen @ weights.T.astype(np.float64)
    magnitude = np.abs(seen) @ np.abs(weights.T.astype(np.float64))
    for path in paths(doors):
        select(doors, path)
        error = np.abs(matrix.times(x) - expected) / magnitude
        # Rounding of sums in fp32; a code that is rounded to its neighbour, at the very middle, is the rest.
        assert error.max() < (2e-6 if name in FLOATS else 2e-4), path


@pytest.mark.parametrize("name", [*ONE_LEVEL, *K_QUANTS])
def test_quantised_products_have_the_same_bits_on_every_path(doors, name):
    matrix, _ = packed(doors, name, 200, 768)
    x = activations(37, 768)
    select(doors, "scalar")
    expected = matrix.times(x)
    for path in paths(doors):
        select(doors, path)
        np.testing.assert_array_equal(matrix.times(x), expected, path)


@pytest.mark.parametrize(("name", "n", "k"), CASES)
def test_a_rows_bits_depend_on_no_other_row(doors, name, n, k):
    matrix, _ = packed(doors, name, n, k)
    x = activations(70, k)
    for path in paths(doors):
        select(doors, path)
        together = matrix.times(x)
        for count in (1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 16, 17, 31, 32, 33, 48, 64):
            np.testing.assert_array_equal(matrix.times(x[:count]), together[:count], f"{path}: {count} rows")
        for alone in (1, 15, 16, 47, 69):
            np.testing.assert_array_equal(matrix.times(x[alone : alone + 1])[0], together[alone], path)
        ranges = [(64, 70), (0, 1), (1, 7), (23, 64), (7, 23)]
        np.testing.assert_array_equal(matrix.times(x, ranges, backwards=True), together, path)


@pytest.mark.parametrize("name", ["F32", "BF16", "Q4_1", "Q8_0", "Q6_K"])
def test_hundreds_of_rows_are_those_rows_alone(doors, name):
    matrix, _ = packed(doors, name, 48, 512)
    x = activations(300, 512)
    for path in paths(doors)[:2]:
        select(doors, path)
        together = matrix.times(x)
        for row in range(0, 300, 23):
            np.testing.assert_array_equal(matrix.times(x[row : row + 1])[0], together[row], path)


@pytest.mark.parametrize("name", ["F16", "BF16", "Q4_0", "Q5_K"])
def test_bias_is_added_and_results_are_added_to_what_is_there(doors, name):
    matrix, _ = packed(doors, name, 33, 256)
    random = np.random.default_rng(2)
    bias, there = random.standard_normal(33, np.float32), random.standard_normal((19, 33), np.float32)
    x = activations(19, 256)
    for path in paths(doors):
        select(doors, path)
        plain = matrix.times(x)
        np.testing.assert_array_equal(matrix.times(x, bias=bias), plain + bias, path)
        np.testing.assert_array_equal(matrix.times(x, bias=bias, onto=there), there + (plain + bias), path)


@pytest.mark.parametrize("name", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q8_0", "Q2_K", "Q6_K"])
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_harms_no_other(doors, name, poison):
    matrix, _ = packed(doors, name, 40, 256)
    x = activations(20, 256)
    sick = x.copy()
    sick[5, 100] = poison
    others = np.arange(20) != 5
    for path in paths(doors):
        select(doors, path)
        got = matrix.times(sick)
        np.testing.assert_array_equal(got[others], matrix.times(x)[others], path)
        assert not np.isfinite(got[5]).any(), path


@pytest.mark.parametrize("name", ["F32", "BF16", "Q4_1", "Q8_0"])
@pytest.mark.parametrize("value", [0.0, 1e-38, 1e-42])
def test_values_too_small_for_a_scale_give_finite_results(doors, name, value):
    matrix, _ = packed(doors, name, 16, 64)
    x = np.full((5, 64), value, np.float32)
    for path in paths(doors):
        select(doors, path)
        assert np.abs(matrix.times(x)).max() < 1e-30, path


def test_what_a_format_cannot_hold_is_refused(doors):
    data = np.zeros(1 << 16, np.uint8)
    pack, row_bytes = doors["matrix_pack"], doors["matrix_row_bytes"]
    for format_number, n, k in (
        (FORMATS["Q4_1"], 4, 48),
        (FORMATS["Q6_K"], 4, 128),
        (FORMATS["F32"], 0, 4),
        (9, 4, 32),
    ):
        assert pack(format_number, n, k, data.ctypes.data) is None
    assert row_bytes(FORMATS["Q4_1"], 576) == 576 // 32 * 20
    assert row_bytes(FORMATS["Q4_1"], 48) == 0


def test_packed_weights_take_little_more_than_the_checkpoint(doors):
    for name, most in (
        ("F32", 1.0),
        ("F16", 1.0),
        ("BF16", 1.0),
        ("Q4_0", 1.0),
        ("Q4_1", 1.0),
        ("Q8_0", 1.0),
        ("Q4_K", 1.03),
    ):
        rows = checkpoint(name, 256, 1536)
        assert Matrix(doors, name, 256, 1536, rows).bytes <= rows.nbytes * most, name


def test_an_unknown_path_is_refused_and_changes_nothing(doors):
    before = doors["kernels_path"]()
    assert doors["kernels_select"](b"mmx") == 0
    assert doors["kernels_path"]() == before
