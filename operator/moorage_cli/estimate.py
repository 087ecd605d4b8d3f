"""How much memory a model needs, from its `config.json`: weights, and the KV cache of its requests."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from moorage_api.llmdeployment import Spec
from moorage_api.quantity import GIB
from moorage_cli.errors import CommandError

_BYTES: Final = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
_ROUNDED: Final = {"Int8": 34 / 32, "Int4": 20 / 32}
"""Bytes of a weight in a group of 32: 32 numbers and a scale; for `Int4` an offset as well."""
_KV_BYTES: Final = 2


@dataclass(frozen=True)
class Shape:
    """What of a decoder decides about its memory. Names are Hugging Face's."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    tied: bool
    bytes_each: float

    @property
    def vocabulary(self) -> int:
        """Numbers in embeddings and output layer."""
        return self.vocab_size * self.hidden_size * (1 if self.tied else 2)

    @property
    def layers(self) -> int:
        """Numbers in attention and MLP of all layers; the few of norms and biases are left out."""
        heads = 2 * self.num_attention_heads + 2 * self.num_key_value_heads
        attention = self.hidden_size * heads * self.head_dim
        return self.num_hidden_layers * (attention + 3 * self.hidden_size * self.intermediate_size)

    @property
    def kv_bytes(self) -> int:
        """Of one token."""
        return 2 * self.num_hidden_layers * self.num_key_value_heads * self.head_dim * _KV_BYTES


def read_shape(file: str) -> Shape:
    """The shape that a `config.json` tells.

    Raises:
        CommandError: it cannot be read, or lacks what the memory follows from.
    """
    try:
        return _shape(json.loads(Path(file).read_text(encoding="utf-8")))
    except KeyError as error:
        raise CommandError(f"{file} has no {error.args[0]}, so the memory cannot be estimated") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CommandError(f"{file}: {' '.join(str(error).split())}; name the model's config.json") from error


def _shape(config: Mapping[str, Any]) -> Shape:
    heads = int(config["num_attention_heads"])
    return Shape(
        vocab_size=int(config["vocab_size"]),
        hidden_size=int(config["hidden_size"]),
        intermediate_size=int(config["intermediate_size"]),
        num_hidden_layers=int(config["num_hidden_layers"]),
        num_attention_heads=heads,
        num_key_value_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or int(config["hidden_size"]) // heads),
        max_position_embeddings=int(config["max_position_embeddings"]),
        tied=bool(config.get("tie_word_embeddings", False)),
        bytes_each=_BYTES.get(str(config.get("dtype") or config.get("torch_dtype")), 2.0),
    )


def weight_bytes(shape: Shape, quantization: str) -> float:
    """Of all weights, rounded as spec.model.quantization says: embeddings and output layer to 8 bits at the least."""
    if quantization == "None":
        return (shape.vocabulary + shape.layers) * shape.bytes_each
    return shape.vocabulary * _ROUNDED["Int8"] + shape.layers * _ROUNDED[quantization]


def parts(shape: Shape, ranks: int) -> tuple[Shape, ...]:
    """What each rank holds: the shape of a smaller model, by the same rule as the runtime's.

    Heads that share a KV head stay together, so parts are not equal where their number is no multiple of the ranks;
    more ranks than KV heads hold copies of them, and divide their query heads.
    """
    together = shape.num_attention_heads // shape.num_key_value_heads
    if ranks <= shape.num_key_value_heads:
        heads = [(count * together, count) for count in _sizes(shape.num_key_value_heads, ranks)]
    else:
        holders = _sizes(ranks, shape.num_key_value_heads)
        heads = [(count, 1) for several in holders for count in _sizes(together, several)]
    rest = zip(_sizes(shape.intermediate_size, ranks), _sizes(shape.vocab_size, ranks), strict=True)
    return tuple(
        replace(
            shape,
            num_attention_heads=queries,
            num_key_value_heads=kv_heads,
            intermediate_size=columns,
            vocab_size=tokens,
        )
        for (queries, kv_heads), (columns, tokens) in zip(heads, rest, strict=True)
    )


def _sizes(total: int, count: int) -> list[int]:
    """Nearly equal ones, the larger first."""
    return [total // count + (index < total % count) for index in range(count)]


def memory_lines(shape: Shape, spec: Spec, device_gib: float | None) -> list[str]:
    """What a replica's accelerator (or, without one, its container) has to hold; `device_gib` is what it has.

    Of a replica that is divided: what the one with the most of it has to hold.
    """
    ranks, most = spec.sharding.tensor_parallel, spec.engine.scheduling.max_running
    context = spec.model.context_length or shape.max_position_embeddings
    divided = parts(shape, ranks)
    if not all(part.num_attention_heads for part in divided):
        return [f"it cannot be divided between {ranks} ranks: it has {shape.num_attention_heads} query heads"]
    held = [_memory(those, spec.model.quantization, context) for those in _together(divided, spec)]
    weights, one = max(held, key=sum)
    least = weights + one
    needs = (
        f"{_whose(spec)}weights {_gib(weights)}, and {_gib(one)} for one request of {context} tokens; "
        f"{most} take {_gib(one * most)}"
    )
    if device_gib is None:
        return [f"about {_gib(least)}: {needs}"]
    if least > device_gib * GIB:
        return [f"about {_gib(least)} of {device_gib:g} GiB, so it does not fit: {needs}"]
    return [f"about {_gib(least)} of {device_gib:g} GiB at least: {needs}"]


def _together(divided: Sequence[Shape], spec: Spec) -> list[Sequence[Shape]]:
    """The parts that share a memory: each accelerator's own, or those of a pod."""
    local = 1 if spec.accelerator is not None else len(divided) // spec.sharding.pods
    return [divided[first : first + local] for first in range(0, len(divided), local)]


def _memory(those: Iterable[Shape], quantization: str, context: int) -> tuple[float, float]:
    """Bytes of the weights, and of the KV cache of one request."""
    held = [(weight_bytes(part, quantization), part.kv_bytes * context) for part in those]
    return sum(weights for weights, _ in held), sum(cache for _, cache in held)


def _whose(spec: Spec) -> str:
    if spec.sharding.tensor_parallel == 1:
        return ""
    if spec.accelerator is not None:
        return "for each rank at most "
    return "for each pod at most " if spec.sharding.pods > 1 else ""


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"
