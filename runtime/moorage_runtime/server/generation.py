"""How a client wants its answer, whatever the prompt: sampling, limits, and its place among others, checked.

Values that a client leaves out are None here; the model's own defaults (`ModelCard.defaults`) fill them later.
Source: OpenAI's API reference; `top_k`, `min_p`, `repetition_penalty`, `ignore_eos`, `priority` and `cache_salt` as
vLLM names them. `timeout` is this server's own.
"""

from dataclasses import dataclass
from typing import Any

from moorage_runtime.engine.admission import LARGEST
from moorage_runtime.server.errors import InvalidRequestError
from moorage_runtime.server.fields import Fields, wrong_size, wrong_type, wrong_value

MAX_CHOICES = 64
MAX_STOPS = 16
MAX_BIASES = 1024
"""Each is added to the logits of every token that is drawn."""
MAX_SALT_CHARACTERS = 256
MAX_TIMEOUT_SECONDS = 86_400.0
# Of any vocabulary; Python refuses to read numbers of thousands of digits.
_ID_DIGITS = 9
_SEED_RANGE = (-(2**63), 2**63 - 1)
_PRIORITY_RANGE = (-(2**31), 2**31 - 1)


@dataclass(frozen=True, kw_only=True)
class Generation:
    """How to answer, whatever the prompt."""

    stream: bool
    include_usage: bool
    n: int
    max_tokens: int | None
    stop: tuple[str, ...]
    seed: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    repetition_penalty: float | None
    presence_penalty: float
    frequency_penalty: float
    logit_bias: dict[int, float]
    logprobs: int | None
    ignore_eos: bool
    priority: int
    cache_salt: str
    timeout_seconds: float | None


def parse_generation(fields: Fields, *, max_tokens: int | None, logprobs: int | None) -> Generation:
    """Check the fields that both APIs have; the two that they spell differently come from the caller."""
    stream = fields.boolean("stream", default=False)
    return Generation(
        stream=stream,
        include_usage=_include_usage(fields, stream=stream),
        n=fields.integer("n", 1, MAX_CHOICES) or 1,
        max_tokens=max_tokens,
        stop=_stops(fields.raw("stop")),
        seed=fields.integer("seed", *_SEED_RANGE),
        temperature=fields.number("temperature", 0, 2),
        top_p=fields.number("top_p", 0, 1, above=True),
        top_k=_top_k(fields),
        min_p=fields.number("min_p", 0, 1),
        repetition_penalty=fields.number("repetition_penalty", 1 / LARGEST, 10),
        presence_penalty=fields.number("presence_penalty", -2, 2) or 0.0,
        frequency_penalty=fields.number("frequency_penalty", -2, 2) or 0.0,
        logit_bias=_logit_bias(fields.raw("logit_bias")),
        logprobs=logprobs,
        ignore_eos=fields.boolean("ignore_eos", default=False),
        priority=fields.integer("priority", *_PRIORITY_RANGE) or 0,
        cache_salt=fields.text("cache_salt", MAX_SALT_CHARACTERS) or "",
        timeout_seconds=fields.number("timeout", 0, MAX_TIMEOUT_SECONDS, above=True),
    )


def _include_usage(fields: Fields, *, stream: bool) -> bool:
    if fields.raw("stream_options") is not None and not stream:
        raise InvalidRequestError(
            "'stream_options' needs 'stream' to be true.", param="stream_options", code="invalid_value"
        )
    options = fields.object("stream_options")
    include_usage = options.boolean("include_usage", default=False)
    options.refuse_rest(frozenset({"include_obfuscation"}))
    return include_usage


def _top_k(fields: Fields) -> int | None:
    # -1 and 0 both mean "all" in the field's usage; the engine knows 0.
    value = fields.integer("top_k", -1, 2**31 - 1)
    return None if value is None else max(value, 0)


def _stops(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise wrong_type("stop", "a string or an array of strings", value)
    if len(stops) > MAX_STOPS or not all(stops):
        raise wrong_value("stop", f"at most {MAX_STOPS} strings, none of them empty", value)
    return tuple(stops)


def _logit_bias(value: Any) -> dict[int, float]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong_type("logit_bias", "an object of token ids and numbers", value)
    if len(value) > MAX_BIASES:
        raise wrong_size("logit_bias", f"at most {MAX_BIASES} token ids", len(value))
    return {_token_id(key): _bias(key, bias) for key, bias in value.items()}


def _token_id(key: str) -> int:
    if not (key.isascii() and key.isdigit() and len(key) <= _ID_DIGITS):
        raise wrong_value("logit_bias", "token ids as keys", key)
    return int(key)


def _bias(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_type(f"logit_bias.{key}", "a number", value)
    if not -100 <= value <= 100:  # noqa: PLR2004 - OpenAI's limits
        raise wrong_value(f"logit_bias.{key}", "a number from -100 to 100", value)
    return float(value)
