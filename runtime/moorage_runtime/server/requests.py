"""What a client may ask for: the bodies of `/v1/chat/completions` and `/v1/completions`, checked.

What both have in common is in `generation`. Source: OpenAI's API reference.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from moorage_runtime.engine.messages import MAX_LOGPROBS
from moorage_runtime.server.errors import InvalidRequestError
from moorage_runtime.server.fields import Fields, shortened, wrong_size, wrong_type, wrong_value
from moorage_runtime.server.generation import MAX_CHOICES, Generation, parse_generation

# OpenAI's fields that make no difference to what one model on one server answers.
IGNORED = frozenset(
    {
        "metadata",
        "parallel_tool_calls",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning_effort",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)
# OpenAI's fields that would make one, with the value that asks for what is done anyway; None: there is none.
UNSUPPORTED: Mapping[str, Any] = {
    "audio": None,
    "echo": False,
    "function_call": None,
    "functions": None,
    "modalities": ["text"],
    "moderation": None,
    "response_format": {"type": "text"},
    "suffix": None,
    "tool_choice": "none",
    "tools": [],
    "verbosity": "medium",
    "web_search_options": None,
}
ROLES = ("system", "developer", "user", "assistant")
MAX_COMPLETION_LOGPROBS = 5
MAX_TOKENS = 10_000_000
MAX_SEQUENCES = 256
"""Answers to one request: each holds a copy of its prompt in the engine, whose memory is planned without."""


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """A body of `/v1/chat/completions`."""

    model: str
    messages: tuple[Mapping[str, Any], ...]
    generation: Generation


@dataclass(frozen=True, kw_only=True)
class CompletionRequest:
    """A body of `/v1/completions`; a prompt is text, or token ids."""

    model: str
    prompts: tuple[str | list[int], ...]
    generation: Generation


def parse_body(body: bytes | bytearray) -> Fields:
    """The JSON object in a request's body."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(f"The request's body is not valid JSON: {error}.", code="invalid_json") from error
    if not isinstance(value, dict):
        raise InvalidRequestError("The request's body must be a JSON object.", code="invalid_json")
    return Fields(value)


def parse_chat(fields: Fields) -> ChatRequest:
    """Check a body of `/v1/chat/completions`."""
    model = fields.string("model")
    messages = _messages(fields.required("messages"))
    wanted = fields.boolean("logprobs", default=False)
    top = fields.integer("top_logprobs", 0, MAX_LOGPROBS)
    if top is not None and not wanted:
        raise InvalidRequestError(
            "'top_logprobs' needs 'logprobs' to be true.", param="top_logprobs", code="invalid_value"
        )
    newer = fields.integer("max_completion_tokens", 1, MAX_TOKENS)
    older = fields.integer("max_tokens", 1, MAX_TOKENS)
    generation = parse_generation(
        fields, max_tokens=newer if newer is not None else older, logprobs=(top or 0) if wanted else None
    )
    _refuse_rest(fields)
    return ChatRequest(model=model, messages=messages, generation=generation)


def parse_completion(fields: Fields) -> CompletionRequest:
    """Check a body of `/v1/completions`."""
    model = fields.string("model")
    prompts = _prompts(fields.required("prompt"))
    max_tokens = fields.integer("max_tokens", 1, MAX_TOKENS)
    logprobs = fields.integer("logprobs", 0, MAX_COMPLETION_LOGPROBS)
    generation = parse_generation(fields, max_tokens=16 if max_tokens is None else max_tokens, logprobs=logprobs)
    if fields.integer("best_of", 1, MAX_CHOICES) not in (None, generation.n):
        raise InvalidRequestError(
            "'best_of' other than 'n' is not supported here.", param="best_of", code="unsupported_parameter"
        )
    if len(prompts) * generation.n > MAX_SEQUENCES:
        raise wrong_size("n", f"at most {MAX_SEQUENCES} answers to all prompts together", len(prompts) * generation.n)
    _refuse_rest(fields)
    return CompletionRequest(model=model, prompts=prompts, generation=generation)


def _refuse_rest(fields: Fields) -> None:
    for name, allowed in UNSUPPORTED.items():
        fields.only(name, allowed)
    fields.refuse_rest(IGNORED)


def _messages(value: Any) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, list):
        raise wrong_type("messages", "an array of messages", value)
    if not value:
        raise InvalidRequestError(
            "'messages' is empty: it needs at least one message.", param="messages", code="empty_array"
        )
    return tuple(_message(item, f"messages[{index}]") for index, item in enumerate(value))


def _message(value: Any, param: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise wrong_type(param, "an object", value)
    fields = Fields(value, f"{param}.")
    role = fields.string("role")
    if role not in ROLES:
        raise wrong_value(f"{param}.role", f"one of {', '.join(ROLES)}", role)
    content = _content(fields.required("content"), f"{param}.content")
    fields.raw("name")
    fields.raw("refusal")
    fields.refuse_rest()
    # `developer` is OpenAI's newer word for what templates know as `system`.
    return {"role": "system" if role == "developer" else role, "content": content}


def _content(value: Any, param: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise wrong_type(param, "a string or an array of text parts", value)
    return "".join(_part(part, f"{param}[{index}]") for index, part in enumerate(value))


def _part(value: Any, param: str) -> str:
    if not isinstance(value, dict):
        raise wrong_type(param, "an object", value)
    fields = Fields(value, f"{param}.")
    kind = fields.string("type")
    if kind != "text":
        raise InvalidRequestError(
            f"Content of type '{shortened(kind)}' is not supported: this server takes text only.",
            param=f"{param}.type",
            code="unsupported_content",
        )
    text = fields.string("text")
    fields.refuse_rest(frozenset({"prompt_cache_breakpoint"}))
    return text


def _prompts(value: Any) -> tuple[str | list[int], ...]:
    prompts = value if isinstance(value, list) and not _are_ids(value) else [value]
    if not prompts:
        raise InvalidRequestError("'prompt' is empty: it needs some text.", param="prompt", code="empty_array")
    if len(prompts) > MAX_CHOICES:
        raise wrong_size("prompt", f"at most {MAX_CHOICES} prompts", len(prompts))
    return tuple(_prompt(prompt) for prompt in prompts)


def _prompt(value: Any) -> str | list[int]:
    if not isinstance(value, str) and not (isinstance(value, list) and _are_ids(value)):
        raise wrong_type("prompt", "a string, an array of strings, or an array of token ids", value)
    if not value:
        raise InvalidRequestError("'prompt' is empty: it needs some text.", param="prompt", code="empty_string")
    return value


def _are_ids(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in value)
