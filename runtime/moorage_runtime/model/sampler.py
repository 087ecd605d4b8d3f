"""From logits to the next token of each sequence. Nothing of one sequence depends on another, to the last bit.

A row of logits is taken by itself and fits the processor's cache; each operation over its vocabulary is one of numpy's,
on the calling thread. A greedy row costs one search for its maximum.
"""

import numpy as np

from moorage_runtime.engine.messages import SamplingParams, TokenLogprobs
from moorage_runtime.engine.plan import Sampled
from moorage_runtime.engine.sequence import Sequence
from moorage_runtime.formats.blocks import Floats
from moorage_runtime.model.draw import at_least, draw, uniform

GREEDY_BELOW = 1e-5
"""Temperatures below are greedy: dividing by them overflows."""


def sample(logits: Floats, sequences: list[Sequence]) -> list[Sampled]:
    """The next token of each sequence from its row of `logits` (sequences, vocabulary), float32; none is written to."""
    return [_sample(row, sequence) for row, sequence in zip(logits, sequences, strict=True)]


def _sample(logits: Floats, sequence: Sequence) -> Sampled:
    best = int(logits.argmax())  # the first NaN, if there is one
    if not np.isfinite(logits[best]):
        return Sampled(None)
    sampling = sequence.sampling
    token = _choose(logits, best, sequence)
    wanted = sampling.logprobs
    return Sampled(token, None if wanted is None else _logprobs(logits, logits[best], token, wanted))


def _choose(logits: Floats, best: int, sequence: Sequence) -> int:
    sampling = sequence.sampling
    if _adjusts(sampling):
        logits = _adjusted(logits, sequence)
        best = int(logits.argmax())
    if sampling.temperature < GREEDY_BELOW:
        return best
    if sampling.seed is None:
        raise ValueError(f"request {sequence.id!r} draws without a seed")
    weights = logits - logits[best]
    weights *= np.float32(1 / sampling.temperature)
    np.exp(weights, out=weights)
    return draw(weights, sampling, uniform(sampling.seed, sequence.length))


def _adjusts(sampling: SamplingParams) -> bool:
    neutral = (1.0, 0.0, 0.0)
    penalties = (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty)
    return penalties != neutral or bool(sampling.logit_bias)


def _adjusted(logits: Floats, sequence: Sequence) -> Floats:
    """Penalties and bias applied to a copy."""
    sampling, logits = sequence.sampling, logits.copy()
    if sampling.repetition_penalty != 1.0:
        seen = np.unique(sequence.tokens)
        values, penalty = logits[seen], np.float32(sampling.repetition_penalty)
        logits[seen] = np.where(values > 0, values / penalty, values * penalty)
    output = sequence.tokens[sequence.prompt_length :]
    if output and (sampling.presence_penalty or sampling.frequency_penalty):
        said, counts = np.unique(output, return_counts=True)
        logits[said] -= (sampling.frequency_penalty * counts + sampling.presence_penalty).astype(np.float32)
    if sampling.logit_bias:
        logits[list(sampling.logit_bias)] += np.array(list(sampling.logit_bias.values()), np.float32)
    return logits


def _logprobs(logits: Floats, highest: np.float32, token: int, wanted: int) -> TokenLogprobs:
    """Log-probabilities of the chosen and of the `wanted` most likely tokens: the lower id first among equals."""
    total = np.exp(logits - highest).sum(dtype=np.float64)
    normalizer = float(highest) + float(np.log(total))
    top: list[tuple[int, float]] = []
    if wanted:
        count = min(wanted, len(logits))
        likely = np.flatnonzero(logits >= at_least(logits, count))
        order = np.lexsort((likely, -logits[likely]))[:count]
        top = [(int(index), float(logits[index]) - normalizer) for index in likely[order]]
    return TokenLogprobs(float(logits[token]) - normalizer, top)
