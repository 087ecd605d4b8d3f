"""What a checkpoint of the Llama family is: its shape, read from a Hugging Face `config.json`.

`gguf_file` makes the same value from a GGUF's metadata. What the forward pass would compute wrongly
in silence (other activations, partial rotation, unknown rope scaling) is refused here, with the reason.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moorage_runtime.formats.token_ids import token_ids
from moorage_runtime.model.errors import UnsupportedModelError

ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")
"""Values of `model_type` (and of a GGUF's `general.architecture`) that the forward pass computes."""


@dataclass(frozen=True, slots=True)
class Llama3Scaling:
    """Llama 3.1's rescaling of the slow rotary frequencies (arXiv:2407.21783)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary position embedding (arXiv:2104.09864)."""

    theta: float
    linear_factor: float = 1.0
    """Positions are divided by it ("linear" scaling)."""
    llama3: Llama3Scaling | None = None


_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "layers", "heads", "kv_heads", "head_dim", "context_length")
_LARGEST_SIZE = 2**27
_MOST_LAYERS = 1024


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The shape of a decoder of the Llama family."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    rms_eps: float
    rope: Rope
    context_length: int
    """Tokens that the model was trained for; with sliding windows the window, within which it is plain attention."""
    tied_embeddings: bool
    eos_token_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse what no model has, before anything is divided by it, or allocated for it.

        Raises:
            UnsupportedModelError: a size is none, or sizes contradict each other.
        """
        for name in _SIZES:
            if not 1 <= (size := getattr(self, name)) <= _LARGEST_SIZE:
                raise UnsupportedModelError(f"the model's {name} is {size}; 1 to {_LARGEST_SIZE} is possible")
        if self.layers > _MOST_LAYERS:
            raise UnsupportedModelError(f"the model has {self.layers} layers; at most {_MOST_LAYERS} are computed")
        if self.heads % self.kv_heads:
            raise UnsupportedModelError(f"{self.heads} query heads do not share {self.kv_heads} key heads evenly")
        if self.head_dim % 2:
            raise UnsupportedModelError(f"heads of {self.head_dim} numbers have no pairs to rotate")
        if not (0 < self.rms_eps < 1 and self.rope.theta > 0 and self.rope.linear_factor > 0):
            raise UnsupportedModelError(f"rms_eps {self.rms_eps:g} or {self.rope} cannot be computed with")

    @property
    def qkv_size(self) -> int:
        """Width of the fused projection: queries, keys, values."""
        return (self.heads + 2 * self.kv_heads) * self.head_dim

    @property
    def kv_size(self) -> int:
        """Width of keys and values of one position of one layer."""
        return 2 * self.kv_heads * self.head_dim


def architecture_of(name: object) -> str:
    """The architecture of that name.

    Raises:
        UnsupportedModelError: the forward pass does not compute it.
    """
    if name not in ARCHITECTURES:
        raise UnsupportedModelError(f"architecture {name!r} is not supported; supported are {', '.join(ARCHITECTURES)}")
    return str(name)


def from_hugging_face(config: Mapping[str, Any], generation: Mapping[str, Any]) -> ModelConfig:
    """The shape that a `config.json` (and `generation_config.json`, `{}` if there is none) tells.

    Raises:
        UnsupportedModelError: another architecture, or a variant that the forward pass does not compute.
    """
    architecture = architecture_of(config.get("model_type"))
    _refuse_code(config)
    try:
        return _shape(architecture, config, generation)
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise UnsupportedModelError(f"config.json cannot be read: {type(error).__name__} {error}") from error


def _shape(architecture: str, config: Mapping[str, Any], generation: Mapping[str, Any]) -> ModelConfig:
    heads = int(config["num_attention_heads"])
    if (activation := config.get("hidden_act", "silu")) != "silu":
        raise UnsupportedModelError(f"activation {activation!r} is not supported; supported is 'silu'")
    return ModelConfig(
        architecture=architecture,
        vocab_size=int(config["vocab_size"]),
        hidden_size=int(config["hidden_size"]),
        intermediate_size=int(config["intermediate_size"]),
        layers=int(config["num_hidden_layers"]),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or config["hidden_size"] // heads),
        rms_eps=float(config["rms_norm_eps"]),
        rope=_rope(config),
        context_length=_context_length(config),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
        eos_token_ids=token_ids(generation.get("eos_token_id", config.get("eos_token_id"))),
    )


def _refuse_code(config: Mapping[str, Any]) -> None:
    if "auto_map" in config:
        raise UnsupportedModelError("config.json asks for the model's own code (auto_map), which is never run")


def _rope(config: Mapping[str, Any]) -> Rope:
    # Since transformers 5 one `rope_parameters`; before, `rope_theta` beside an optional `rope_scaling`.
    scaling: Mapping[str, Any] = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = float(scaling.get("rope_theta") or config.get("rope_theta") or 10_000.0)
    if float(scaling.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0) != 1.0:
        raise UnsupportedModelError("rotary embedding of a part of each head is not supported")
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind == "default":
        return Rope(theta)
    if kind == "linear":
        return Rope(theta, linear_factor=float(scaling["factor"]))
    if kind == "llama3":
        return Rope(theta, llama3=_llama3(scaling))
    raise UnsupportedModelError(f"rope scaling {kind!r} is not supported; supported are default, linear, llama3")


def _llama3(scaling: Mapping[str, Any]) -> Llama3Scaling:
    return Llama3Scaling(
        factor=float(scaling["factor"]),
        low_freq_factor=float(scaling["low_freq_factor"]),
        high_freq_factor=float(scaling["high_freq_factor"]),
        original_context=int(scaling["original_max_position_embeddings"]),
    )


def _context_length(config: Mapping[str, Any]) -> int:
    """Positions for which full attention is what the model means: shorter than a sliding window is inside of it."""
    trained = int(config["max_position_embeddings"])
    window = config.get("sliding_window")
    slides = bool(window) and bool(config.get("use_sliding_window", True))
    return min(trained, int(window)) if slides and window else trained
