"""From logits to the next token of each sequence, and nothing of one sequence depends on another.

Randomness is a pure function of (seed, position): a seed gives the same noise in any batch, after preemption and in any
order of steps. One uniform number per token chooses by the inverse of the cumulated distribution.
"""

import torch
from torch import Tensor

from moorage_runtime.engine.messages import SamplingParams, TokenLogprobs
from moorage_runtime.engine.plan import Sampled
from moorage_runtime.engine.sequence import Sequence

GREEDY_BELOW = 1e-5
"""Temperatures below are greedy: dividing by them overflows."""
PREFILTER = 256
"""Candidates of a truncated row that are sorted at first; all are when these do not hold the wanted mass."""
_MASK = (1 << 64) - 1


def sample(logits: Tensor, sequences: list[Sequence]) -> list[Sampled]:
    """The next token of each sequence from its row of `logits` (sequences, vocabulary)."""
    highest, best = logits.max(-1)
    finite = highest.isfinite().tolist()
    chosen: list[int] = best.tolist()
    rows = [row for row, sequence in enumerate(sequences) if finite[row] and not _is_plain(sequence.sampling)]
    if rows:
        adjusted = logits[rows].float()
        for row, sequence in zip(adjusted, (sequences[index] for index in rows), strict=True):
            _adjust_(row, sequence)
        for index, token in zip(rows, _choose(adjusted, [sequences[index] for index in rows]), strict=True):
            chosen[index] = token
    logprobs = _logprobs(logits, sequences, chosen)
    return [Sampled(chosen[row] if finite[row] else None, logprobs.get(row)) for row in range(len(sequences))]


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) from a counter: two rounds of SplitMix64 (Steele et al., OOPSLA 2014)."""
    return (_mix(_mix(seed & _MASK) ^ position) >> 11) * 2.0**-53


def _mix(state: int) -> int:
    state = (state + 0x9E3779B97F4A7C15) & _MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return state ^ (state >> 31)


def _noise(sequence: Sequence) -> float:
    if sequence.sampling.seed is None:
        raise ValueError(f"request {sequence.id!r} draws without a seed")
    return uniform(sequence.sampling.seed, sequence.length)


def _is_plain(sampling: SamplingParams) -> bool:
    """Whether the most likely token of the model's own logits is the answer."""
    return sampling.temperature < GREEDY_BELOW and not _adjusts(sampling)


def _adjusts(sampling: SamplingParams) -> bool:
    neutral = (1.0, 0.0, 0.0)
    penalties = (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty)
    return penalties != neutral or bool(sampling.logit_bias)


def _adjust_(row: Tensor, sequence: Sequence) -> None:
    """Apply penalties and bias to one row (vocabulary,) in place."""
    sampling = sequence.sampling
    if sampling.repetition_penalty != 1.0:
        seen = torch.tensor(sequence.tokens)
        values = row[seen]
        row[seen] = torch.where(values > 0, values / sampling.repetition_penalty, values * sampling.repetition_penalty)
    if sampling.presence_penalty or sampling.frequency_penalty:
        output = torch.tensor(sequence.tokens[sequence.prompt_length :], dtype=torch.long)
        counts = torch.bincount(output, minlength=len(row))
        row -= sampling.frequency_penalty * counts + sampling.presence_penalty * (counts > 0)
    if sampling.logit_bias:
        row[list(sampling.logit_bias)] += torch.tensor(list(sampling.logit_bias.values()))


def _choose(logits: Tensor, sequences: list[Sequence]) -> list[int]:
    """One token per row: greedy rows by the maximum, others by their noise."""
    chosen: list[int] = logits.argmax(-1).tolist()
    drawn = [row for row, sequence in enumerate(sequences) if sequence.sampling.temperature >= GREEDY_BELOW]
    if drawn:
        asked = [sequences[row].sampling for row in drawn]
        noise = torch.tensor([_noise(sequences[row]) for row in drawn], dtype=torch.float64)
        temperatures = torch.tensor([sampling.temperature for sampling in asked])
        probabilities = (logits[drawn] / temperatures[:, None]).softmax(-1)
        for row, token in zip(drawn, _draw(probabilities, noise, asked), strict=True):
            chosen[row] = token
    return chosen


def _draw(probabilities: Tensor, noise: Tensor, asked: list[SamplingParams]) -> list[int]:
    """One token per row, by the path that its own parameters need."""
    tokens = torch.zeros(len(asked), dtype=torch.long)
    truncated = torch.tensor([_truncates(sampling) for sampling in asked])
    whole = ~truncated
    tokens[whole] = _inverse(probabilities[whole], noise[whole])
    rows = truncated.nonzero().flatten()
    for width in (PREFILTER, probabilities.shape[-1]):
        if len(rows):
            picks, settled = _draw_truncated(probabilities[rows], noise[rows], [asked[row] for row in rows], width)
            tokens[rows] = picks
            rows = rows[~settled]
    found: list[int] = tokens.tolist()
    return found


def _truncates(sampling: SamplingParams) -> bool:
    return bool(sampling.top_k) or sampling.top_p < 1.0 or sampling.min_p > 0.0


def _draw_truncated(
    probabilities: Tensor, noise: Tensor, asked: list[SamplingParams], width: int
) -> tuple[Tensor, Tensor]:
    """A token of each row from its `width` most likely, and whether these hold all that survives the truncation."""
    vocabulary = probabilities.shape[-1]
    likely, tokens = probabilities.topk(min(width, vocabulary), sorted=True)
    kept = _kept(likely, asked)
    picks = _inverse(likely * kept, noise)
    settled = ~kept[:, -1] | (width >= vocabulary)
    return tokens.gather(1, picks[:, None])[:, 0], settled


def _kept(likely: Tensor, sampling: list[SamplingParams]) -> Tensor:
    """Which of the sorted probabilities (rows, width) survive top-k, top-p and min-p."""
    width = likely.shape[-1]
    top_k = torch.tensor([s.top_k or width + 1 for s in sampling])
    top_p = torch.tensor([s.top_p for s in sampling])
    min_p = torch.tensor([s.min_p for s in sampling])
    within_k = torch.arange(width) < top_k[:, None]
    # top-p counts in what top-k left; a token is kept when those before it do not reach the mass yet.
    mass = (likely * within_k).cumsum(-1)
    before = mass - likely
    total = torch.where(top_k <= width, mass[:, -1], 1.0)
    return within_k & (before < (top_p * total)[:, None]) & (likely >= min_p[:, None] * likely[:, :1])


def _inverse(weights: Tensor, noise: Tensor) -> Tensor:
    """The index at which the cumulated weights (rows, width) pass the share `noise` (rows,) of their sum."""
    cumulated = weights.cumsum(-1, dtype=torch.float64)
    return (cumulated <= (noise * cumulated[:, -1])[:, None]).sum(-1)


def _logprobs(logits: Tensor, sequences: list[Sequence], chosen: list[int]) -> dict[int, TokenLogprobs]:
    """Log-probabilities of the rows that ask for them, by row."""
    found = {}
    for row, sequence in enumerate(sequences):
        if (wanted := sequence.sampling.logprobs) is not None:
            scores = logits[row].float().log_softmax(-1)
            values, tokens = scores.topk(wanted)
            top = list(zip(tokens.tolist(), values.tolist(), strict=True))
            found[row] = TokenLogprobs(scores[chosen[row]].item(), top)
    return found
