"""From a checkpoint to packed weights of the C++ kernels: which type each matrix is computed in, and the packing."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np

from moorage_runtime.formats.blocks import Bytes, Floats, Stored, as_float32
from moorage_runtime.formats.dequantize import dequantize
from moorage_runtime.formats.layout import FORMATS, Layout
from moorage_runtime.kernels.library import (
    EMBEDDING,
    FINAL_NORM,
    HEAD,
    MATRICES,
    NO_LAYER,
    VECTORS,
    KernelsError,
    Model,
    Shape,
)
from moorage_runtime.model.config import ModelConfig
from moorage_runtime.model.errors import UnsupportedModelError
from moorage_runtime.model.rotary import inverse_frequencies
from moorage_runtime.model.shapes import ROPE_FACTORS
from moorage_runtime.model.tensors import Checkpoint

Asked = Literal["bfloat16", "float32"]

_PARTS = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm"), "self_attn"),
    **dict.fromkeys(("gate_proj", "up_proj", "down_proj"), "mlp"),
}
_ONLY_QWEN3 = ("q_norm", "k_norm")
_VALUES = "self_attn.v_proj.weight"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor of a checkpoint belongs in the library's model."""

    name: str
    layer: int
    slot: int


def pack(checkpoint: Checkpoint, asked: str | None, threads: int, progress: Callable[[float], None]) -> Model:
    """Read every tensor and repack it for this machine.

    Args:
        checkpoint: What to read.
        asked: None keeps the formats of the checkpoint, half precision becoming bfloat16; else all is made this type.
        threads: Matrices packed at the same time.
        progress: Told the share that is done.

    Raises:
        UnsupportedModelError: a tensor is missing or cannot be packed.
    """
    config = checkpoint.config
    factors = checkpoint.stored(ROPE_FACTORS)
    frequencies = inverse_frequencies(config.rope, config.head_dim, None if factors is None else floats_of(factors))
    model = Model(shape_of(config), frequencies)
    places = list(_matrices(config))
    with ThreadPoolExecutor(threads) as pool:
        for index, _ in enumerate(pool.map(lambda place: _set_matrix(model, checkpoint, place, asked), places)):
            progress((index + 1) / len(places))
    for place in _vectors(config):
        model.vector(place.layer, place.slot, floats_of(_required(checkpoint, place.name)))
    model.complete()
    return model


def shape_of(config: ModelConfig) -> Shape:
    """The library's idea of a model's shape."""
    return Shape(
        vocab=config.vocab_size,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        layers=config.layers,
        heads=config.heads,
        kv_heads=config.kv_heads,
        head_dim=config.head_dim,
        eps=config.rms_eps,
    )


def computed_format(name: str, stored: Layout | Stored, asked: str | None) -> str:
    """The format in which a matrix is computed; no bit of it depends on anything but the checkpoint and `asked`.

    A quantised matrix multiplies activations of 8 bits. The projection to values is most sensitive to that: it alone in
    bfloat16 takes away a third of what a quantised SmolLM2's distributions are off by, for some 3 % of the weights.
    """
    if asked is not None:
        return {"bfloat16": "BF16", "float32": "F32"}[asked]
    quantised = FORMATS[stored.format].block > 1
    return "BF16" if stored.format == "F16" or (quantised and name.endswith(_VALUES)) else stored.format


def packed_bytes(checkpoint: Checkpoint, asked: str | None) -> int:
    """Memory that the matrices will take, known before any is read."""
    layouts = ((place.name, checkpoint.layout(place.name)) for place in _matrices(checkpoint.config))
    return sum(
        each.rows * FORMATS[computed_format(name, each, asked)].row_bytes(each.columns)
        for name, each in layouts
        if each is not None
    )


def floats_of(stored: Stored) -> Floats:
    """The numbers of a tensor: (rows, columns), a vector (columns,)."""
    plain = FORMATS[stored.format].block == 1
    values = as_float32(stored.format, stored.data) if plain else dequantize(stored)
    return values.reshape(-1) if stored.rows == 1 else values.reshape(stored.rows, stored.columns)


def _matrices(config: ModelConfig) -> Iterator[_Place]:
    yield _Place("model.embed_tokens.weight", NO_LAYER, EMBEDDING)
    if not config.tied_embeddings:
        yield _Place("lm_head.weight", NO_LAYER, HEAD)
    for layer in range(config.layers):
        for slot, name in enumerate(MATRICES):
            yield _Place(f"model.layers.{layer}.{_PARTS[name]}.{name}.weight", layer, slot)


def _vectors(config: ModelConfig) -> Iterator[_Place]:
    yield _Place("model.norm.weight", NO_LAYER, FINAL_NORM)
    for layer in range(config.layers):
        for slot, name in enumerate(VECTORS):
            if name not in _ONLY_QWEN3 or config.architecture == "qwen3":
                path = f"{_PARTS[name]}.{name}" if name in _PARTS else name
                yield _Place(f"model.layers.{layer}.{path}.weight", layer, slot)


def _set_matrix(model: Model, checkpoint: Checkpoint, place: _Place, asked: str | None) -> None:
    stored = _required(checkpoint, place.name)
    target = computed_format(place.name, stored, asked)
    try:
        model.matrix(place.layer, place.slot, target, (stored.rows, stored.columns), _converted(stored, target))
    except KernelsError as error:
        raise UnsupportedModelError(f"tensor {place.name!r} ({stored.format}) cannot be packed: {error}") from error
    bias = None if place.layer == NO_LAYER else checkpoint.stored(place.name.removesuffix("weight") + "bias")
    if bias is not None:
        model.bias(place.layer, place.slot, floats_of(bias))


def _converted(stored: Stored, target: str) -> Bytes:
    if stored.format == target:
        return stored.data
    values = floats_of(stored)
    return values.view(np.uint8) if target == "F32" else _bfloat16(values)


def _bfloat16(values: Floats) -> Bytes:
    """Rounded to the nearest, ties to even; a NaN stays one."""
    bits = values.view(np.uint32)
    rounded = ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)
    rounded[np.isnan(values)] = 0x7FC0
    return rounded.view(np.uint8)


def _required(checkpoint: Checkpoint, name: str) -> Stored:
    stored = checkpoint.stored(name)
    if stored is None:
        raise UnsupportedModelError(f"the model has no tensor {name!r}")
    return stored
