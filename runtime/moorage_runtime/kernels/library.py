"""The C++ library as Python sees it: typed objects over its C functions, errors as exceptions.

The structures here and in `src/model.h` and `src/session.h` are the same; both sides say so. ctypes releases the
interpreter lock for the time of a call.
"""

import ctypes
import os
from collections.abc import Callable, Sequence
from ctypes import POINTER, Structure, byref, c_char_p, c_float, c_int32, c_int64, c_uint64, c_void_p
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

import numpy as np

from moorage_runtime.kernels.build import LIBRARY

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Floats = np.ndarray[Any, np.dtype[np.float32]]
Integers = np.ndarray[Any, np.dtype[np.int32]]

FORMATS = {
    "F32": 0,
    "F16": 1,
    "Q4_0": 2,
    "Q4_1": 3,
    "Q5_0": 6,
    "Q5_1": 7,
    "Q8_0": 8,
    "Q2_K": 10,
    "Q3_K": 11,
    "Q4_K": 12,
    "Q5_K": 13,
    "Q6_K": 14,
    "BF16": 30,
}
"""Formats of matrices (`moorage::Format`): GGUF's names and numbers."""
MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""A layer's matrices, in the library's order (`moorage::MatrixSlot`)."""
VECTORS = ("input_layernorm", "post_attention_layernorm", "q_norm", "k_norm")
"""A layer's norms, in the library's order (`moorage::VectorSlot`)."""
EMBEDDING, HEAD, FINAL_NORM = 0, 1, 0
"""What belongs to no layer: two matrices, one norm."""
NO_LAYER = -1


class KernelsError(Exception):
    """The library is not there, cannot be loaded, or refused a call; the message says why."""


class Shape(Structure):
    """`moorage::Shape`."""

    _fields_ = (
        *((name, c_int32) for name in ("vocab", "hidden", "intermediate", "layers", "heads", "kv_heads", "head_dim")),
        ("eps", c_float),
    )


class SessionOptions(Structure):
    """`moorage::SessionOptions`."""

    _fields_ = (
        *((name, c_int32) for name in ("threads", "rows", "samples", "blocks", "layers", "bf16_cache")),
        ("spin_ns", c_int64),
        ("kernels", c_char_p),
        ("group", c_void_p),
        ("vocabulary", POINTER(c_int32)),
    )


class GroupOptions(Structure):
    """`moorage::GroupOptions`."""

    _fields_ = (
        *((name, c_int32) for name in ("rank", "ranks")),
        *((name, c_int64) for name in ("capacity", "timeout_ns", "spin_ns")),
        ("memory", c_int32),
        *((name, POINTER(c_int32)) for name in ("sockets", "controls")),
    )


class StepInput(Structure):
    """`moorage::StepInput`."""

    _fields_ = (
        *((name, c_int32) for name in ("chunks", "rows", "samples")),
        *(
            (name, c_void_p)
            for name in ("tokens", "starts", "counts", "offsets", "tables", "sample_rows", "drawn", "best")
        ),
    )


class _Counters(Structure):
    _fields_ = tuple(
        (name, c_int64) for name in ("products_ns", "attention_ns", "rest_ns", "waited_ns", "steps", "rows")
    )


@dataclass(frozen=True, slots=True)
class Counters:
    """Where the time of a session's steps went, in nanoseconds of the calling thread's clock, since it was made."""

    products_ns: int
    attention_ns: int
    rest_ns: int
    waited_ns: int
    """For other ranks, where several compute one model."""
    steps: int
    rows: int

    @property
    def share_outside_products(self) -> float:
        """Part of the time that was not spent in matrix products, 0 to 1; waiting for other ranks is left out."""
        total = self.products_ns + self.attention_ns + self.rest_ns
        return 1 - self.products_ns / total if total else 0.0


_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "problem": (c_char_p, ()),
    "kernels_path": (c_char_p, ()),
    "kernels_select": (c_int32, (c_char_p,)),
    "model_new": (c_void_p, (POINTER(Shape), c_void_p)),
    "model_free": (None, (c_void_p,)),
    "model_matrix": (c_char_p, (c_void_p, c_int32, c_int32, c_int32, c_int32, c_int32, c_void_p)),
    "model_bias": (c_char_p, (c_void_p, c_int32, c_int32, c_int32, c_void_p)),
    "model_vector": (c_char_p, (c_void_p, c_int32, c_int32, c_int32, c_void_p)),
    "model_complete": (c_char_p, (c_void_p,)),
    "model_bytes": (c_uint64, (c_void_p,)),
    "group_new": (c_void_p, (POINTER(GroupOptions),)),
    "group_free": (None, (c_void_p,)),
    "session_new": (c_void_p, (c_void_p, POINTER(SessionOptions))),
    "session_free": (None, (c_void_p,)),
    "session_logits": (c_void_p, (c_void_p,)),
    "session_ops": (c_char_p, (c_void_p,)),
    "session_counters": (None, (c_void_p, POINTER(_Counters))),
    "session_step": (c_char_p, (c_void_p, POINTER(StepInput))),
}


@cache
def library() -> dict[str, Callable[..., Any]]:
    """The functions of the library by name, without their prefix.

    Raises:
        KernelsError: it was not built, or this machine cannot load it.
    """
    if not LIBRARY.exists():
        raise KernelsError(f"{LIBRARY.name} was not built (python -m moorage_runtime.kernels.build says why)")
    try:
        loaded = ctypes.CDLL(str(LIBRARY))
        functions = {name: getattr(loaded, f"moorage_{name}") for name in _FUNCTIONS}
    except (OSError, AttributeError) as error:
        raise KernelsError(f"{LIBRARY.name} cannot be loaded: {error}") from error
    for name, (result, arguments) in _FUNCTIONS.items():
        functions[name].restype, functions[name].argtypes = result, arguments
    return functions


def path() -> str:
    """Instruction sets that products take here, for example `amx`."""
    name: bytes = library()["kernels_path"]()
    return name.decode()


class Model:
    """Packed weights. Not complete until every matrix and norm is set."""

    def __init__(self, shape: Shape, inverse_frequencies: Floats) -> None:
        self.shape = shape
        self._functions = library()
        frequencies = np.ascontiguousarray(inverse_frequencies, np.float32)
        self._handle = _made(self._functions["model_new"](byref(shape), frequencies.ctypes.data))

    def matrix(self, layer: int, slot: int, format_name: str, size: tuple[int, int], data: Bytes) -> None:
        """Pack one matrix of that size (outputs, inputs); `data` is not needed afterwards.

        Raises:
            KernelsError: the format or the size is not the model's.
        """
        data = np.ascontiguousarray(data)
        _check(
            self._functions["model_matrix"](self._handle, layer, slot, FORMATS[format_name], *size, data.ctypes.data)
        )

    def bias(self, layer: int, slot: int, values: Floats) -> None:
        """What is added to a matrix's outputs."""
        values = np.ascontiguousarray(values, np.float32)
        _check(self._functions["model_bias"](self._handle, layer, slot, values.size, values.ctypes.data))

    def vector(self, layer: int, slot: int, values: Floats) -> None:
        """A norm's weights."""
        values = np.ascontiguousarray(values, np.float32)
        _check(self._functions["model_vector"](self._handle, layer, slot, values.size, values.ctypes.data))

    def complete(self) -> None:
        """Say that everything is set.

        Raises:
            KernelsError: something is not.
        """
        _check(self._functions["model_complete"](self._handle))

    @property
    def bytes(self) -> int:
        """Memory of the weights: what a step reads at least once, but for an untied embedding."""
        size: int = self._functions["model_bytes"](self._handle)
        return size

    @property
    def handle(self) -> int:
        """The library's object."""
        return self._handle

    def __del__(self) -> None:
        """Free the weights; a session keeps its model, so none computes with them."""
        if handle := getattr(self, "_handle", None):
            self._functions["model_free"](handle)


class Group:
    """The ranks that compute one model together, as one of them knows them."""

    def __init__(self, options: GroupOptions, vocabulary: Sequence[int], owner: object) -> None:
        """Nothing is said to the others yet.

        Args:
            options: Who they are.
            vocabulary: The first token of each rank's part, and the end of the last one's.
            owner: Of the file descriptors in the options; lives as long as this.

        Raises:
            KernelsError: memory is refused.
        """
        self.rank = options.rank
        self._owner = owner
        self.vocabulary = (c_int32 * len(vocabulary))(*vocabulary)
        self._functions = library()
        self._handle = _made(self._functions["group_new"](byref(options)))

    @property
    def handle(self) -> int:
        """The library's object."""
        return self._handle

    def __del__(self) -> None:
        """Free it; a session keeps its group."""
        if handle := getattr(self, "_handle", None):
            self._functions["group_free"](handle)


class Session:
    """Threads, KV cache and working memory over a model, or over a rank's part of one."""

    def __init__(self, model: Model, options: SessionOptions, group: Group | None = None) -> None:
        """Start the threads; the cache takes memory as it is written.

        Raises:
            KernelsError: memory or threads are refused.
        """
        self._model = model
        self._group = group
        self._functions = library()
        self._step = self._functions["session_step"]
        columns = model.shape.vocab
        if group is not None:
            options.group, options.vocabulary = group.handle, group.vocabulary
            columns = columns if group.rank else group.vocabulary[-1]
        self._handle: int | None = _made(self._functions["session_new"](model.handle, byref(options)))
        address: int = self._functions["session_logits"](self._handle)
        floats = (c_float * (options.samples * columns)).from_address(address)
        self.logits: Floats = np.frombuffer(floats, np.float32).reshape(options.samples, columns)
        """Of the last step's samples, a row each; the next step writes over them. In a group the first rank has whole
        rows, of the samples that are `drawn`, and the others have their part."""

    def step(self, inputs: StepInput) -> None:
        """Compute one step over all layers.

        Raises:
            KernelsError: the input is not one that the session was made for; nothing was computed. Or another rank of
                the group did not come to an exchange: the group is broken then.
        """
        _check(self._step(self._handle, byref(inputs)))

    @property
    def ops(self) -> str:
        """Instruction set of attention and of what else is no product."""
        name: bytes = self._functions["session_ops"](self._handle)
        return name.decode()

    def counters(self) -> Counters:
        """Where time went so far."""
        read = _Counters()
        self._functions["session_counters"](self._handle, byref(read))
        return Counters(read.products_ns, read.attention_ns, read.rest_ns, read.waited_ns, read.steps, read.rows)

    def close(self) -> None:
        """End the threads and free cache and working memory; `logits` must not be read any more."""
        if handle := getattr(self, "_handle", None):
            self._handle = None
            self._functions["session_free"](handle)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """See `close`."""
        self.close()

    def __del__(self) -> None:
        """See `close`."""
        self.close()


def lowered_to() -> bytes:
    """The instruction set that MOORAGE_KERNELS asks not to go beyond; empty: none."""
    return os.environ.get("MOORAGE_KERNELS", "").encode()


def _made(handle: int | None) -> int:
    if not handle:
        raise KernelsError(library()["problem"]().decode())
    return handle


def _check(problem: bytes | None) -> None:
    if problem is not None:
        raise KernelsError(problem.decode())
