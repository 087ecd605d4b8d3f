"""Which part of a model each of several ranks computes: pure arithmetic.

Attention is divided between groups of heads that share a KV head, the MLP between columns, the vocabulary between
tokens: then each rank computes its part of a layer without the others, and the sum of what they got is the layer's
(Megatron-LM, arXiv:1909.08053). A rank's part of a model has the shape of a smaller model.

Parts may differ in size: a model of 3 KV heads on 2 ranks has 2 on the first and 1 on the second. More ranks than KV
heads hold copies of them and divide their query heads.
"""

from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from math import lcm

from moorage_runtime.formats.layout import FORMATS
from moorage_runtime.model.config import ModelConfig
from moorage_runtime.model.errors import UnsupportedModelError
from moorage_runtime.model.tensors import Checkpoint

_COLUMNS = 32
"""Parts of the MLP are multiples of it, but for the last: whole vectors of every machine."""
_TOKENS = 64
"""As `_COLUMNS`, for the vocabulary."""


@dataclass(frozen=True, slots=True)
class Span:
    """From `first` up to, and without, `end`."""

    first: int
    end: int

    @property
    def size(self) -> int:
        """How many."""
        return self.end - self.first

    def times(self, size: int) -> "Span":
        """The same stretch in units of which `size` make one of these."""
        return Span(self.first * size, self.end * size)


@dataclass(frozen=True, slots=True)
class Share:
    """What one rank computes."""

    rank: int
    heads: Span
    kv_heads: Span
    mlp: Span
    vocabulary: Span

    def config(self, whole: ModelConfig) -> ModelConfig:
        """The shape of this part."""
        return replace(
            whole,
            heads=self.heads.size,
            kv_heads=self.kv_heads.size,
            intermediate_size=self.mlp.size,
            vocab_size=self.vocabulary.size,
        )


@dataclass(frozen=True, slots=True)
class Blocks:
    """How many columns of a matrix must stay together, because one scale is theirs."""

    attention: int = 1
    """Of the projection of attention's output."""
    mlp: int = 1
    """Of the MLP's last matrix."""


def blocks_of(checkpoint: Checkpoint) -> Blocks:
    """The largest blocks in which a checkpoint's matrices are stored that are divided by columns."""
    return Blocks(_block(checkpoint, "self_attn.o_proj"), _block(checkpoint, "mlp.down_proj"))


def shares_of(config: ModelConfig, ranks: int, blocks: Blocks) -> tuple[Share, ...]:
    """The parts of a model, one for each rank.

    Raises:
        UnsupportedModelError: there are fewer parts that can be told apart than ranks.
    """
    if ranks == 1:
        whole = (Span(0, config.heads), Span(0, config.kv_heads), Span(0, config.intermediate_size))
        return (Share(0, *whole, Span(0, config.vocab_size)),)
    attention = _attention(config, ranks, blocks.attention)
    mlp = _spans("columns of the MLP", config.intermediate_size, ranks, lcm(_COLUMNS, blocks.mlp))
    vocabulary = _spans("tokens", config.vocab_size, ranks, _TOKENS)
    return tuple(
        Share(rank, heads, kv_heads, mlp[rank], vocabulary[rank]) for rank, (heads, kv_heads) in enumerate(attention)
    )


def _attention(config: ModelConfig, ranks: int, block: int) -> list[tuple[Span, Span]]:
    """Query heads and KV heads of each rank."""
    group = config.heads // config.kv_heads
    if ranks <= config.kv_heads:
        together = lcm(group * config.head_dim, block) // (group * config.head_dim)
        parts = _spans("KV heads", config.kv_heads, ranks, together)
        return [(part.times(group), part) for part in parts]
    together = lcm(config.head_dim, block) // config.head_dim
    found = []
    for kv_head, holders in enumerate(_sizes(ranks, config.kv_heads)):
        for part in _spans("query heads of a KV head", group, holders, together):
            heads = Span(kv_head * group + part.first, kv_head * group + part.end)
            found.append((heads, Span(kv_head, kv_head + 1)))
    if any(heads.first * config.head_dim % block for heads, _ in found):
        raise UnsupportedModelError(f"{ranks} ranks would divide blocks of {block} weights; use fewer")
    return found


def _spans(what: str, total: int, ranks: int, together: int) -> list[Span]:
    """`total` in as many parts, each but the last a multiple of `together`, the larger ones first."""
    units = -(-total // together)
    if units < ranks:
        stay = f", of which {together} stay together," if together > 1 else ""
        raise UnsupportedModelError(f"{total} {what}{stay} cannot be divided between {ranks} ranks; use fewer")
    ends = accumulate(_sizes(units, ranks), initial=0)
    return [Span(first * together, min(end * together, total)) for first, end in pairwise(ends)]


def _sizes(total: int, parts: int) -> list[int]:
    """Nearly equal ones, the larger first."""
    return [total // parts + (part < total % parts) for part in range(parts)]


def _block(checkpoint: Checkpoint, part: str) -> int:
    layouts = (checkpoint.layout(f"model.layers.{index}.{part}.weight") for index in range(checkpoint.config.layers))
    return max((FORMATS[layout.format].block for layout in layouts if layout is not None), default=1)
