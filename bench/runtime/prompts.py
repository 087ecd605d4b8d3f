"""The bodies of requests: no two have a prompt in common, but for what a cell says they share."""

import random
import uuid
from collections.abc import Mapping
from functools import cache
from typing import Any

from bench.runtime.cells import LONG, OUT, Cell

_TOPICS = ("harbour", "lighthouse", "market", "mountain", "library", "garden", "railway", "river")
# Each is one token, with the space before it, of the vocabularies in use.
_WORDS = ("time", "people", "year", "way", "day", "world", "life", "hand", "part", "child", "eye", "place", "work")
# What template, nonce and question take of a long prompt.
_AROUND = 50


def body(cell: Cell, model: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """A request for `OUT` streamed tokens; `extra` is what a server wants besides."""
    nonce = uuid.uuid4().hex[:8]
    # A template puts the system message first, or its own default one where there is none: the nonce belongs there.
    system, start = (_filler(), f"{nonce}: ") if cell.shared else (nonce, "")
    middle = "" if cell.shared or cell.prompt < LONG else _filler() + " "
    user = f"{start}{middle}Tell me a long story about an old {random.choice(_TOPICS)}."
    sampling = {"temperature": 0.7, "top_p": 0.9} if cell.sampled else {"temperature": 0}
    return {
        "model": model,
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
        "max_tokens": OUT,
        "stream": True,
        **sampling,
        **extra,
    }


@cache
def _filler() -> str:
    words = random.Random(0)
    return " ".join(words.choice(_WORDS) for _ in range(LONG - _AROUND))
