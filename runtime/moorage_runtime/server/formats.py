"""OpenAI's answer objects, whole and in chunks."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from moorage_runtime.server.answer import Delta, Usage
from moorage_runtime.server.logprobs import TokenNames, chat_logprobs, completion_logprobs


def usage_object(usage: Usage) -> dict[str, Any]:
    """OpenAI's `usage`."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def _stop_reason(delta: Delta) -> dict[str, str]:
    """What ended an answer, in a field of vLLM's, where `finish_reason` has no word for it; else absent."""
    return {} if delta.stop_reason is None else {"stop_reason": delta.stop_reason}


class Format(Protocol):
    """One of the two APIs: how its chunks and its whole answer look."""

    @property
    def with_logprobs(self) -> bool:
        """Whether chunks show log-probabilities."""

    def first(self, choices: int) -> list[dict[str, Any]]:
        """Chunks that come before any text."""

    def chunk(self, delta: Delta) -> dict[str, Any]:
        """A chunk of a streamed answer."""

    def usage(self, usage: Usage) -> dict[str, Any]:
        """The last chunk, where the client asked for it."""

    def whole(self, choices: Sequence[Sequence[Delta]], usage: Usage) -> dict[str, Any]:
        """The answer in one piece, from all deltas of each choice."""


@dataclass(frozen=True)
class ChatFormat:
    """`chat.completion` and `chat.completion.chunk`."""

    model: str
    names: TokenNames
    with_logprobs: bool
    include_usage: bool
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def first(self, choices: int) -> list[dict[str, Any]]:
        """Each choice begins with its role."""
        role = {"role": "assistant", "content": ""}
        return [self._chunk([self._choice(index, role, None, None)]) for index in range(choices)]

    def chunk(self, delta: Delta) -> dict[str, Any]:
        """Text of one choice, or its end."""
        content = {"content": delta.text} if delta.text or delta.finish_reason is None else {}
        choice = self._choice(delta.index, content, self._logprobs([delta]), delta.finish_reason)
        return self._chunk([choice | _stop_reason(delta)])

    def usage(self, usage: Usage) -> dict[str, Any]:
        """A chunk without choices."""
        return self._chunk([]) | {"usage": usage_object(usage)}

    def whole(self, choices: Sequence[Sequence[Delta]], usage: Usage) -> dict[str, Any]:
        """A `chat.completion`."""
        return {
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [self._whole_choice(index, deltas) for index, deltas in enumerate(choices)],
            "usage": usage_object(usage),
        }

    def _whole_choice(self, index: int, deltas: Sequence[Delta]) -> dict[str, Any]:
        message = {"role": "assistant", "content": "".join(delta.text for delta in deltas), "refusal": None}
        return {
            "index": index,
            "message": message,
            "logprobs": self._logprobs(deltas),
            "finish_reason": deltas[-1].finish_reason,
            **_stop_reason(deltas[-1]),
        }

    def _logprobs(self, deltas: Sequence[Delta]) -> dict[str, Any] | None:
        if not self.with_logprobs:
            return None
        entries = [entry for delta in deltas for entry in chat_logprobs(self.names, delta.token_ids, delta.logprobs)]
        return {"content": entries, "refusal": None}

    @staticmethod
    def _choice(
        index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None, finish_reason: str | None
    ) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        chunk = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }
        # With usage asked for, every other chunk says null (OpenAI's rule).
        return chunk | {"usage": None} if self.include_usage else chunk


@dataclass(frozen=True)
class CompletionFormat:
    """`text_completion`, whole and in chunks."""

    model: str
    names: TokenNames
    with_logprobs: bool
    include_usage: bool
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))
    _written: dict[int, int] = field(default_factory=dict)
    """Characters of each choice's tokens so far, for `text_offset`."""

    def first(self, choices: int) -> list[dict[str, Any]]:  # noqa: ARG002 - the other format needs it
        """Nothing comes before the text."""
        return []

    def chunk(self, delta: Delta) -> dict[str, Any]:
        """Text of one choice, or its end."""
        return self._object([self._choice(delta.index, [delta])])

    def usage(self, usage: Usage) -> dict[str, Any]:
        """A chunk without choices."""
        return self._object([]) | {"usage": usage_object(usage)}

    def whole(self, choices: Sequence[Sequence[Delta]], usage: Usage) -> dict[str, Any]:
        """A `text_completion`."""
        whole = self._object([self._choice(index, deltas) for index, deltas in enumerate(choices)])
        return whole | {"usage": usage_object(usage)}

    def _choice(self, index: int, deltas: Sequence[Delta]) -> dict[str, Any]:
        return {
            "index": index,
            "text": "".join(delta.text for delta in deltas),
            "logprobs": self._logprobs(index, deltas),
            "finish_reason": deltas[-1].finish_reason,
            **_stop_reason(deltas[-1]),
        }

    def _logprobs(self, index: int, deltas: Sequence[Delta]) -> dict[str, list[Any]] | None:
        if not self.with_logprobs:
            return None
        tokens = [token for delta in deltas for token in delta.token_ids]
        values = [value for delta in deltas for value in delta.logprobs]
        offset = self._written.get(index, 0)
        found = completion_logprobs(self.names, tokens, values, offset)
        self._written[index] = offset + sum(len(text) for text in found["tokens"])
        return found

    def _object(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        value = {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }
        return value | {"usage": None} if self.include_usage else value
