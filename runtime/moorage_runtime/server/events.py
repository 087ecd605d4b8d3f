"""How the chunks of an answer are written as server-sent events."""

from collections.abc import Mapping
from typing import Any

import orjson

from moorage_runtime.server.answer import Delta
from moorage_runtime.server.formats import Format

DONE = b"data: [DONE]\n\n"
"""OpenAI's last event."""
_PLACEHOLDER = "\N{SYMBOL FOR NULL}"


def event(value: Mapping[str, Any]) -> bytes:
    """One event."""
    return b"data: " + orjson.dumps(value) + b"\n\n"


class Events:
    """The chunks of one answer as events.

    Nearly all chunks of an answer differ in their text alone, and a busy server writes thousands of them a second. So
    what surrounds the text is written once per choice, from a chunk of the format's own with a placeholder in it.
    """

    def __init__(self, form: Format) -> None:
        self._form = form
        self._frames: dict[int, tuple[bytes, bytes]] = {}

    def event(self, delta: Delta) -> bytes:
        """The event for what is new about one choice."""
        if delta.finish_reason is not None or self._form.with_logprobs:
            return event(self._form.chunk(delta))
        head, tail = self._frames.get(delta.index) or self._frame(delta.index)
        return head + orjson.dumps(delta.text) + tail

    def _frame(self, index: int) -> tuple[bytes, bytes]:
        # From the right: what comes before the text has names in it that others chose.
        head, _, tail = event(self._form.chunk(Delta(index, _PLACEHOLDER))).rpartition(orjson.dumps(_PLACEHOLDER))
        self._frames[index] = head, tail
        return head, tail
