"""Whether a request can be computed at all. Limits of the model, so that no request can make a step fail for others."""

from moorage_runtime.engine.messages import MAX_LOGPROBS, SamplingParams, Submit
from moorage_runtime.engine.plan import Limits

LARGEST = 1e6
"""Of temperatures, penalties and biases: beyond, logits become infinite, and a draw of none ends the engine for all."""


def problem(request: Submit, limits: Limits) -> str | None:
    """Why the request is refused, in words for whoever sent it; None when it is not."""
    if not request.prompt:
        return "the prompt has no tokens"
    if len(request.prompt) >= limits.context_length:
        return f"the prompt has {len(request.prompt)} tokens; the context length is {limits.context_length}"
    if request.max_tokens < 1:
        return f"max_tokens is {request.max_tokens}; it must be at least 1"
    if request.timeout_seconds is not None and not request.timeout_seconds > 0:  # NaN as well
        return f"timeout_seconds is {request.timeout_seconds:g}; it must be greater than 0"
    if min(request.prompt) < 0 or max(request.prompt) >= limits.vocab_size:
        return f"the prompt has a token id outside of the vocabulary (0 to {limits.vocab_size - 1})"
    return sampling_problem(request.sampling, limits.vocab_size)


def sampling_problem(sampling: SamplingParams, vocab_size: int) -> str | None:
    """Why tokens cannot be drawn so; None when they can."""
    unit, both = "must lie in", f"[{-LARGEST:g}, {LARGEST:g}]"
    checks = {
        f"temperature {unit} [0, {LARGEST:g}]": 0 <= sampling.temperature <= LARGEST,
        f"top_p {unit} (0, 1]": 0 < sampling.top_p <= 1,
        f"top_k {unit} [0, inf)": sampling.top_k >= 0,
        f"min_p {unit} [0, 1]": 0 <= sampling.min_p <= 1,
        f"repetition_penalty {unit} [{1 / LARGEST:g}, {LARGEST:g}]": 1 / LARGEST
        <= sampling.repetition_penalty
        <= LARGEST,
        f"presence_penalty {unit} {both}": abs(sampling.presence_penalty) <= LARGEST,
        f"frequency_penalty {unit} {both}": abs(sampling.frequency_penalty) <= LARGEST,
        f"logprobs {unit} [0, {MAX_LOGPROBS}]": sampling.logprobs is None or 0 <= sampling.logprobs <= MAX_LOGPROBS,
        f"token ids of logit_bias {unit} [0, {vocab_size})": all(
            0 <= token < vocab_size for token in sampling.logit_bias
        ),
        f"values of logit_bias {unit} {both}": all(abs(bias) <= LARGEST for bias in sampling.logit_bias.values()),
    }
    return next((rule for rule, holds in checks.items() if not holds), None)
