"""The sampler on a GPU: all rows at once, and one copy back to the host.

The rules are those of `moorage_runtime.model.sampler` and `moorage_runtime.model.draw`, which take row by row what the
processor has at hand; here a row more costs nothing, and a question asked of the GPU costs a wait. On the same logits
both choose the same tokens.
"""

from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor

from moorage_runtime.engine.messages import SamplingParams, TokenLogprobs
from moorage_runtime.engine.plan import Sampled
from moorage_runtime.engine.sequence import Sequence
from moorage_runtime.model.draw import uniform
from moorage_runtime.model.sampler import GREEDY_BELOW

Pairs = list[tuple[int, int, float]]
"""(row, token, number)."""


def sample(logits: Tensor, sequences: list[Sequence]) -> list[Sampled]:
    """The next token of each sequence from its row of `logits` (sequences, vocabulary)."""
    chosen = choose(logits, sequences)
    logprobs = _logprobs(logits, sequences, chosen)
    return [Sampled(None if token < 0 else token, logprobs.get(row)) for row, token in enumerate(chosen.tolist())]


def choose(logits: Tensor, sequences: list[Sequence]) -> Tensor:
    """One token per row, on the device of the logits; -1 where the greatest logit is no finite number."""
    highest, best = logits.max(-1)
    asked = [sequence.sampling for sequence in sequences]
    if any(_adjusts(sampling) for sampling in asked) or any(_draws(sampling) for sampling in asked):
        adjusted = _adjusted(logits.float(), sequences)
        best = adjusted.argmax(-1)
        drawn = [row for row, sampling in enumerate(asked) if _draws(sampling)]
        for truncated in (False, True):
            if rows := [row for row in drawn if _truncates(asked[row]) == truncated]:
                at = _on(logits, rows, torch.long)
                drawn_now = _draw(adjusted.index_select(0, at), [sequences[row] for row in rows], truncated=truncated)
                best = best.index_copy(0, at, drawn_now)
    return torch.where(highest.isfinite(), best, -1)


def _draws(sampling: SamplingParams) -> bool:
    return sampling.temperature >= GREEDY_BELOW


def _truncates(sampling: SamplingParams) -> bool:
    return bool(sampling.top_k) or sampling.top_p < 1.0 or sampling.min_p > 0.0


def _adjusts(sampling: SamplingParams) -> bool:
    penalties = (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty)
    return penalties != (1.0, 0.0, 0.0) or bool(sampling.logit_bias)


def _adjusted(logits: Tensor, sequences: list[Sequence]) -> Tensor:
    """Penalties and bias of all rows; a copy where there are any."""
    repeated: Pairs = []
    said: Pairs = []
    biased: Pairs = []
    for row, sequence in enumerate(sequences):
        sampling = sequence.sampling
        if sampling.repetition_penalty != 1.0:
            repeated += ((row, token, sampling.repetition_penalty) for token in set(sequence.tokens))
        if sampling.presence_penalty or sampling.frequency_penalty:
            counts = Counter(sequence.tokens[sequence.prompt_length :])
            weighed = ((token, sampling.frequency_penalty * count) for token, count in counts.items())
            said += ((row, token, -(weight + sampling.presence_penalty)) for token, weight in weighed)
        biased += ((row, token, bias) for token, bias in sampling.logit_bias.items())
    if repeated:
        at, penalties = _places(logits, repeated)
        values = logits.take(at)
        logits = logits.put(at, torch.where(values > 0, values / penalties, values * penalties))
    for pairs in (said, biased):
        if pairs:
            at, numbers = _places(logits, pairs)
            logits = logits.put(at, numbers, accumulate=True)
    return logits


def _draw(logits: Tensor, sequences: list[Sequence], *, truncated: bool) -> Tensor:
    """A token of each row: the greatest weights first where some are cut off, else in the order of their ids."""
    asked = [sequence.sampling for sequence in sequences]
    inverse = _on(logits, [1 / sampling.temperature for sampling in asked], torch.float32)[:, None]
    weights = ((logits - logits.amax(-1, keepdim=True)) * inverse).exp()
    noise = _on(logits, [_noise(sequence) for sequence in sequences], torch.float64)[:, None]
    if not truncated:
        return _inverse(weights.cumsum(-1, dtype=torch.float64), noise)[:, 0]
    weights, tokens = weights.sort(dim=-1, descending=True, stable=True)
    kept = weights * _kept(weights, asked)
    return tokens.gather(1, _inverse(kept.cumsum(-1, dtype=torch.float64), noise))[:, 0]


def _kept(weights: Tensor, asked: list[SamplingParams]) -> Tensor:
    """Which of the sorted weights (rows, vocabulary), the first of each row 1, survive top-k, top-p and min-p."""
    vocabulary = weights.shape[-1]
    top_k = _on(weights, [min(sampling.top_k or vocabulary, vocabulary) for sampling in asked], torch.long)[:, None]
    top_p = _on(weights, [sampling.top_p for sampling in asked], torch.float64)[:, None]
    min_p = _on(weights, [sampling.min_p for sampling in asked], torch.float32)[:, None]
    mass = weights.cumsum(-1, dtype=torch.float64)
    # top-p counts in what top-k left; a token is kept when those before it do not reach the mass yet.
    before = torch.nn.functional.pad(mass[:, :-1], (1, 0))
    unreached = (before < top_p * mass.gather(1, top_k - 1)) | (top_p >= 1.0)
    return (torch.arange(vocabulary, device=weights.device) < top_k) & unreached & (weights >= min_p)


def _inverse(cumulated: Tensor, noise: Tensor) -> Tensor:
    """The index at which each row passes the share `noise` of its end, none behind the last that has any weight.

    Of a row that is no numbers it is any index, but one: what is beyond would end the process on a GPU.
    """
    end = cumulated[:, -1:].contiguous()
    beyond = torch.searchsorted(cumulated, noise * end, right=True)
    return torch.minimum(beyond, torch.searchsorted(cumulated, end)).clamp(max=cumulated.shape[-1] - 1)


def _noise(sequence: Sequence) -> float:
    if sequence.sampling.seed is None:
        raise ValueError(f"request {sequence.id!r} draws without a seed")
    return uniform(sequence.sampling.seed, sequence.length)


def _logprobs(logits: Tensor, sequences: list[Sequence], chosen: Tensor) -> dict[int, TokenLogprobs]:
    """Log-probabilities of the rows that ask for them, by row; equally likely tokens come in any order."""
    wanted = {row: each.sampling.logprobs for row, each in enumerate(sequences) if each.sampling.logprobs is not None}
    if not wanted:
        return {}
    at = _on(logits, list(wanted), torch.long)
    scores = logits.index_select(0, at).float().log_softmax(-1)
    of_chosen = scores.gather(1, chosen.index_select(0, at).clamp(min=0)[:, None])[:, 0]
    values, tokens = scores.topk(min(max(wanted.values()), scores.shape[-1]))
    rows = zip(wanted.items(), of_chosen.tolist(), tokens.tolist(), values.tolist(), strict=True)
    return {row: TokenLogprobs(own, list(zip(ids[:n], best[:n], strict=True))) for (row, n), own, ids, best in rows}


def _places(like: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Where in `like`, counted over all rows, the numbers belong, and the numbers."""
    vocabulary = like.shape[-1]
    at = _on(like, [row * vocabulary + token for row, token, _ in pairs], torch.long)
    return at, _on(like, [number for _, _, number in pairs], torch.float32)


def _on(like: Tensor, values: Iterable[float], dtype: torch.dtype) -> Tensor:
    """The values where `like` is."""
    return torch.tensor(tuple(values), dtype=dtype).to(like.device)
