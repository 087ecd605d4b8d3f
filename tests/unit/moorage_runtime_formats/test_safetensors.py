"""The safetensors reader against the library's writer, and against headers that lie."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from moorage_runtime.formats.safetensors import SafetensorsError, read_safetensors

TENSORS = {
    "a": np.arange(12, dtype=np.float32).reshape(3, 4),
    "b": np.arange(6, dtype=np.float16),
    "c": np.arange(5, dtype=np.int64),
    "empty": np.zeros((0, 4), np.float32),
}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.safetensors"


def lie(file, header, size=64):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(size))
    return file


def entry(begin, end, shape, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_tensors_are_what_was_written(file):
    save_file(TENSORS, file, metadata={"format": "pt"})
    read = read_safetensors(file)
    assert set(read) == set(TENSORS)
    for name, values in TENSORS.items():
        assert read[name].shape == values.shape
        assert np.array_equal(read[name].data.view(values.dtype).reshape(values.shape), values)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"a": entry(0, 128, [32])}, r"tensor 'a' is at 0 to 128 of 64 bytes"),
        ({"a": entry(60, 76, [4])}, r"tensor 'a' is at 60 to 76 of 64 bytes"),
        ({"a": entry(16, 0, [4])}, r"tensor 'a' is at 16 to 0 of 64 bytes"),
        ({"a": entry(-8, 8, [4])}, "tensor 'a' has a shape or place that is no natural number"),
        ({"a": entry(0, 16, [-4])}, "no natural number"),
        ({"a": entry(0, 16, [True, 4])}, "no natural number"),
        ({"a": entry(0, 16, [2.0, 2])}, "no natural number"),
        ({"a": entry(0, 16, [5])}, r"tensor 'a', F32 \[5\], has 16 bytes"),
        ({"a": entry(0, 16, [2**62, 2**62])}, "has 16 bytes"),
        ({"a": entry(0, 16, [4]), "b": entry(8, 24, [4])}, "tensors 'a' and 'b' overlap"),
        ({"a": entry(0, 16, [4], "Q9")}, "tensor 'a' is of the unknown type 'Q9'"),
        ({"a": entry(0, 16, [4], ["F32"])}, "tensor 'a' is of the unknown type"),
        ({"a": {"dtype": "F32"}}, "what the header says of tensor 'a' cannot be read"),
        ({"a": None}, "what the header says of tensor 'a' cannot be read"),
        ({"a": entry(0, 16, 4)}, "what the header says of tensor 'a' cannot be read"),
        ([1], "the header is no object"),
        (b'{"a": 1', "the header is no JSON"),
        (b"\xff\xfe", "the header is no JSON"),
        (b"[" * 100_000, "the header is no JSON"),
        (b'{"a": {}, "a": {}}', "names a tensor twice"),
    ],
)
def test_a_header_that_lies_is_refused(file, header, reason):
    with pytest.raises(SafetensorsError, match=reason):
        read_safetensors(lie(file, header))


def test_a_file_cut_anywhere_is_refused(file):
    save_file({name: TENSORS[name] for name in "abc"}, file)
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(SafetensorsError):
            read_safetensors(file)


def test_a_header_longer_than_the_file_is_refused(file):
    file.write_bytes((2**63).to_bytes(8, "little") + bytes(100))
    with pytest.raises(SafetensorsError, match="a header of 9223372036854775808 bytes is not in a file of 108"):
        read_safetensors(file)
