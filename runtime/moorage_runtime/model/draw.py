"""Drawing one token from the weights of all: truncated by top-k, top-p, min-p, then by the inverse of the distribution.

Sorting a vocabulary costs more than everything else about a token, and nearly always the tokens that can be drawn are
few. So those are taken that have at least a 1,024th of the total weight, at most 1,024 then; only when the truncation
keeps more than them, more are, and at last all.

Randomness is a pure function of (seed, position): a seed gives the same noise in any batch, after preemption and in any
order of steps.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from moorage_runtime.engine.messages import SamplingParams
from moorage_runtime.formats.blocks import Floats

Indices = np.ndarray[Any, np.dtype[np.int64]]
Doubles = np.ndarray[Any, np.dtype[np.float64]]

PREFILTER = 1024
"""Candidates at first, at most."""
_RARE = 32_768
"""A token of this share of the total weight is a candidate when the first ones do not hold what is wanted."""
_STRETCH = 256
_MASK = (1 << 64) - 1


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) from a counter: two rounds of SplitMix64 (Steele et al., OOPSLA 2014)."""
    return (_mix(_mix(seed & _MASK) ^ position) >> 11) * 2.0**-53


def _mix(state: int) -> int:
    state = (state + 0x9E3779B97F4A7C15) & _MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return state ^ (state >> 31)


def draw(weights: Floats, sampling: SamplingParams, noise: float) -> int:
    """A token id.

    Args:
        weights: Probabilities of the vocabulary before truncation, times anything; the greatest is 1.
        sampling: How to truncate.
        noise: In [0, 1).
    """
    sums = np.add.reduceat(weights, _starts(len(weights))).astype(np.float64)
    if not (sampling.top_k or sampling.top_p < 1.0 or sampling.min_p > 0.0):
        return _draw_of_all(weights, sums, noise)
    likely, mass = _most_likely(weights, float(sums.sum()), sampling)
    return _token(weights, likely, _place(mass, noise * mass[-1]))


def at_least(values: Floats, count: int) -> np.float32:
    """A bound below which none of the `count` greatest values lies; a small multiple of as many lie above."""
    greatest = np.maximum.reduceat(values, _starts(len(values)))
    # As many stretches have their greatest there.
    source = greatest if count <= len(greatest) else values
    bound: np.float32 = np.partition(source, len(source) - count)[len(source) - count]
    return bound


@lru_cache(maxsize=8)
def _starts(count: int) -> Indices:
    return np.arange(0, count, _STRETCH)


def _draw_of_all(weights: Floats, sums: Doubles, noise: float) -> int:
    """First the stretch, by the sums of all stretches, then the token in it."""
    cumulated = sums.cumsum()
    stretch = _place(cumulated, noise * cumulated[-1])
    passed = cumulated[stretch] - sums[stretch]
    within = (noise * cumulated[-1] - passed) / sums[stretch]
    first = stretch * _STRETCH
    return first + _inverse(weights[first : first + _STRETCH], min(max(within, 0.0), 1.0))


def _most_likely(weights: Floats, total: float, sampling: SamplingParams) -> tuple[Floats, Doubles]:
    """Weights that survive the truncation, the greatest first, and the mass of each with those before it."""
    for threshold in _thresholds(weights, total, sampling):
        likely = np.sort(weights[weights >= threshold])[::-1]
        mass = likely.cumsum(dtype=np.float64)
        if threshold == 0.0 or _holds_all(mass, threshold, total, sampling):
            break
    count = _survivors(likely, mass, total, sampling)
    return likely[:count], mass[:count]


def _thresholds(weights: Floats, total: float, sampling: SamplingParams) -> Iterator[np.float32]:
    yield np.float32(total / PREFILTER)
    if 0 < sampling.top_k < len(weights):
        yield at_least(weights, sampling.top_k)
    else:
        yield np.float32(total / _RARE)
    yield np.float32(0.0)


def _holds_all(mass: Doubles, threshold: np.float32, total: float, sampling: SamplingParams) -> bool:
    """Whether the truncation keeps none but the candidates, which are all from `threshold` on."""
    if sampling.top_k and len(mass) >= sampling.top_k:
        return True
    if sampling.top_p < 1.0:
        # With top-k too, the mass that counts is that of the k best, of which some are missing.
        return not sampling.top_k and len(mass) > 0 and bool(mass[-1] >= sampling.top_p * total)
    return bool(threshold <= sampling.min_p)


def _survivors(likely: Floats, mass: Doubles, total: float, sampling: SamplingParams) -> int:
    """How many of the candidates are kept."""
    count = len(likely)
    if sampling.top_k:
        count = min(count, sampling.top_k)
        total = float(mass[count - 1])
    if sampling.top_p < 1.0:  # kept are those before which the mass is not reached yet
        count = min(count, int(np.searchsorted(mass, sampling.top_p * total)) + 1)
    if sampling.min_p > 0.0:
        count = min(count, int(np.count_nonzero(likely >= np.float32(sampling.min_p))))
    return count


def _token(weights: Floats, likely: Floats, place: int) -> int:
    """Which token has the weight at that place of the sorted ones; equal weights lie in the order of their ids."""
    before = int(np.count_nonzero(likely[:place] == likely[place]))
    return int(np.flatnonzero(weights == likely[place])[before])


def _inverse(weights: Floats, noise: float) -> int:
    """The index at which the cumulated weights pass the share `noise` of their sum."""
    cumulated = weights.cumsum(dtype=np.float64)
    return _place(cumulated, noise * cumulated[-1])


def _place(cumulated: Doubles, at: float) -> int:
    """The first index beyond `at`, and none behind the last that has any weight."""
    beyond = int(np.searchsorted(cumulated, at, side="right"))
    return min(beyond, int(np.searchsorted(cumulated, cumulated[-1], side="left")))
