"""The GGUF reader against the `gguf` package's writer, and against damaged files."""

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moorage_runtime.formats.gguf import GgufError, GgufFile, read_metadata
from moorage_runtime.formats.layout import FORMATS

VALUES = {
    "a.uint8": 200,
    "a.int8": -100,
    "a.uint16": 60_000,
    "a.int16": -30_000,
    "a.uint32": 4_000_000_000,
    "a.int32": -2_000_000_000,
    "a.float32": 0.5,
    "a.bool": True,
    "a.string": "a harbour, ⚓",
    "a.uint64": 2**63,
    "a.int64": -(2**62),
    "a.float64": 0.1,
    "a.texts": ["", "⚓", "x" * 300],
    "a.numbers": [1, 2, 70_000],
}
TENSORS = {
    "plain": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "half": np.arange(6, dtype=np.float16).reshape(2, 3),
    "vector": np.arange(5, dtype=np.float32),
}


def write(path, *, alignment=None, raw=()):
    writer = gguf.GGUFWriter(path, "llama")
    if alignment is not None:
        writer.add_custom_alignment(alignment)
    for key, value in VALUES.items():
        kind = key.removeprefix("a.")
        (writer.add_array if isinstance(value, list) else getattr(writer, f"add_{kind}"))(key, value)
    for name, values in TENSORS.items():
        writer.add_tensor(name, values)
    for name, data, kind in raw:
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return write(tmp_path_factory.mktemp("gguf") / "m.gguf")


def test_metadata_is_what_was_written(sample):
    read = read_metadata(sample)
    assert {key: read[key] for key in VALUES} == VALUES
    assert read["general.architecture"] == "llama"


@pytest.mark.parametrize("alignment", [None, 8, 64, 1024])
def test_tensors_are_where_they_were_written(tmp_path, alignment):
    file = GgufFile(write(tmp_path / "m.gguf", alignment=alignment))
    assert set(file.tensors) == set(TENSORS)
    for name, values in TENSORS.items():
        info = file.tensors[name]
        assert info.shape == values.shape
        assert info.type == {"float32": "F32", "float16": "F16"}[values.dtype.name]
        assert np.array_equal(np.frombuffer(file.data(info), values.dtype).reshape(values.shape), values)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_read_as_the_package_reads_it(tmp_path, name):
    form, kind = FORMATS[name], gguf.GGMLQuantizationType[name]
    assert (form.block, form.size) == gguf.GGML_QUANT_SIZES[kind]
    data = np.random.default_rng(1).integers(0, 255, (3, 2 * form.size), np.uint8)
    path = write(tmp_path / "m.gguf", raw=[("blocks", data, kind)])
    (theirs,) = [tensor for tensor in gguf.GGUFReader(path).tensors if tensor.name == "blocks"]
    file = GgufFile(path)
    ours = file.tensors["blocks"]
    assert (ours.type, ours.shape) == (name, (3, 2 * form.block))
    assert bytes(file.data(ours)) == data.tobytes() == theirs.data.tobytes()


def test_a_type_that_is_not_computed_is_refused_by_tensor_and_type(tmp_path):
    kind = gguf.GGMLQuantizationType.IQ4_XS
    data = np.zeros((2, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8)
    file = GgufFile(write(tmp_path / "m.gguf", raw=[("blk.0.ffn_up.weight", data, kind)]))
    with pytest.raises(GgufError, match=r"tensor 'blk\.0\.ffn_up\.weight' is IQ4_XS; supported are F32, F16"):
        file.data(file.tensors["blk.0.ffn_up.weight"])


def changed(sample, tmp_path, change):
    content = bytearray(sample.read_bytes())
    path = tmp_path / "damaged.gguf"
    path.write_bytes(change(content) or content)
    return path


def put(content, after, value, skip=0):
    """Overwrite what follows the first `after`."""
    at = content.index(after) + len(after) + skip
    content[at : at + len(value)] = value


U64 = 8
HUGE = (2**62).to_bytes(U64, "little")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda _: b"\n", "does not start with 'GGUF'"),
        (lambda content: content[:10], "cut short or damaged"),
        (lambda content: put(content, b"GGUF", b"\0\0\0\3"), "version 50331648 is not one of .2, 3.*big-endian"),
        (lambda content: put(content, b"GGUF", HUGE, skip=4 + U64), "run over the end|cut short or damaged"),
        (lambda content: put(content, b"GGUF", HUGE, skip=4), "tensor '' has 0 dimensions"),
        (lambda content: put(content, b"a.string", b"\x63"), "value type 99 is not read"),
        (lambda content: put(content, b"a.string", HUGE, skip=4), "run over the end"),
        (lambda content: put(content, b"a.texts", HUGE, skip=8), f"{2**62} texts at [0-9]+ run over the end"),
        (lambda content: put(content, b"a.texts", b"\x09", skip=4), "value type 9 is not read .an array of arrays."),
        (lambda content: put(content, b"a.numbers", HUGE, skip=8), "run over the end"),
        (lambda content: content.replace(b"a.int32", b"a.int16"), "metadata 'a.int16' is there twice"),
        (lambda content: put(content, b"vector", b"\x09"), "tensor 'vector' has 9 dimensions; 1 to 4 are read"),
        (lambda content: put(content, b"vector", bytes(U64), skip=4), "tensor 'vector' is empty"),
        (lambda content: put(content, b"vector", b"\x01", skip=16), r"tensor 'vector' is at 1, .* \(aligned to 32\)"),
        (lambda content: put(content, b"vector", HUGE, skip=16), "tensor 'vector' is at 4611686018427387904, which"),
    ],
)
def test_a_damaged_header_is_refused_when_it_is_opened(sample, tmp_path, change, reason):
    with pytest.raises(GgufError, match=reason):
        GgufFile(changed(sample, tmp_path, change))


def test_a_tensor_that_ends_outside_of_the_file_is_refused(sample, tmp_path):
    file = GgufFile(changed(sample, tmp_path, lambda content: put(content, b"vector", HUGE, skip=4)))
    with pytest.raises(GgufError, match=r"'vector': its 18446744073709551616 bytes at .* outside of the file"):
        file.data(file.tensors["vector"])


def test_a_row_of_a_part_of_a_block_is_refused(tmp_path):
    kind = gguf.GGMLQuantizationType.Q4_0
    path = write(tmp_path / "m.gguf", raw=[("blocks", np.zeros((2, 18), np.uint8), kind)])
    file = GgufFile(changed(path, tmp_path, lambda content: put(content, b"blocks", b"\x21", skip=4)))
    with pytest.raises(GgufError, match="a row of 33 numbers is no whole number of Q4_0 blocks"):
        file.data(file.tensors["blocks"])


def read_everything(path):
    file = GgufFile(path)
    dict(file.metadata)
    for info in file.tensors.values():
        file.data(info)


def test_a_file_cut_anywhere_is_refused(sample, tmp_path):
    whole = sample.read_bytes()
    path = tmp_path / "cut.gguf"
    end = max(info.offset + info_bytes for info, info_bytes in _ends(sample))
    for length in range(0, end, 3):
        path.write_bytes(whole[:length])
        with pytest.raises(GgufError):
            read_everything(path)


def _ends(path):
    file = GgufFile(path)
    return [(info, file.data(info).nbytes) for info in file.tensors.values()]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_read_or_refused_and_nothing_else(sample, tmp_path, data):
    content = bytearray(sample.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(4, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.gguf"
    path.write_bytes(content)
    try:
        read_everything(path)
    except GgufError as error:
        assert str(error)  # noqa: PT017 - a refusal is as good as a result
