"""The ranks of a group as the C++ kernels know them: what a step's exchanges go through."""

from collections.abc import Sequence
from ctypes import c_int32
from dataclasses import dataclass

from moorage_runtime import resources
from moorage_runtime.engine.plan import MOST_RUNNING
from moorage_runtime.group.links import Links
from moorage_runtime.kernels.library import Group, GroupOptions
from moorage_runtime.model.config import ModelConfig
from moorage_runtime.model.shares import Share

EXCHANGE_SECONDS = 30
"""How long a rank waits for the others within a step."""
MOST_ROWS = 4096
"""Rows of a step at most."""
_VECTOR = 16
"""Numbers to multiples of which the kernels pad a row (`padded` in `model.h`)."""
_SPIN_NS = 200_000
"""How long a rank that waits keeps its processor: most exchanges are over by then."""


@dataclass(frozen=True, slots=True)
class NativeGroup:
    """The library's object, and how many ranks share this machine's processors."""

    group: Group
    local_ranks: int


def group_of(links: Links, whole: ModelConfig, shares: Sequence[Share], threads: int) -> NativeGroup:
    """What a rank of that group computes with, `threads` threads each."""
    spins = threads * links.local_ranks <= resources.compute_threads()
    row = -(-whole.hidden_size // _VECTOR) * _VECTOR
    options = GroupOptions(
        rank=links.rank,
        ranks=links.ranks,
        capacity=max(MOST_ROWS * row, shares[0].vocabulary.size, 2 * MOST_RUNNING),
        timeout_ns=EXCHANGE_SECONDS * 10**9,
        spin_ns=_SPIN_NS if spins else 0,
        memory=-1 if links.memory is None else links.memory,
        sockets=_integers([-1 if stream is None else stream.fileno() for stream in links.streams]),
        controls=_integers(links.controls),
    )
    vocabulary = [share.vocabulary.first for share in shares] + [shares[-1].vocabulary.end]
    return NativeGroup(Group(options, vocabulary, links), links.local_ranks)


def _integers(values: Sequence[int]) -> "c_int32 * int":  # type: ignore[valid-type] # ctypes makes the type
    return (c_int32 * len(values))(*values)
