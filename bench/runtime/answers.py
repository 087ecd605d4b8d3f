"""Streamed answers: when their events came, how many tokens they were, and what that makes of a window of time."""

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from bench.runtime.cells import OUT

_PREFIX = b"data:"
_DONE = b"[DONE]"


class ServerError(Exception):
    """A server could not be set up, started or measured; the message says why."""


@dataclass(slots=True)
class Answer:
    """One request and what came back. Times are seconds of one monotonic clock."""

    sent: float
    events: list[float] = field(default_factory=list)
    """When text came. Not one per token: a server that is behind, or that waits for the rest of a character, sends
    several tokens in one event."""
    finish: str | None = None
    completion_tokens: int | None = None
    """As the server counted, where it does so in a stream."""
    prompt_tokens: int | None = None

    @property
    def tokens(self) -> float | None:
        """Tokens of the complete answer: by the server's count, else `OUT` where it was cut there; None otherwise."""
        if self.completion_tokens is not None:
            return self.completion_tokens
        return OUT if self.finish == "length" else None

    def take(self, event: bytes, now: float) -> None:
        """Read the data of one server-sent event that came `now`.

        Raises:
            ServerError: it is an error.
        """
        if event == _DONE:
            return
        value = orjson.loads(event)
        if "error" in value:
            raise ServerError(f"a server broke an answer off: {event[:500]!r}")
        if usage := value.get("usage"):
            self.completion_tokens, self.prompt_tokens = usage["completion_tokens"], usage["prompt_tokens"]
        for choice in value.get("choices") or ():
            self.finish = choice.get("finish_reason") or self.finish
            if (choice.get("delta") or {}).get("content"):
                self.events.append(now)


class EventStream:
    """Cuts a response's body, which arrives in any pieces, into the data of its server-sent events (WHATWG HTML)."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that `piece` completes. All servers here send one line of data for an event."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        return [line.removeprefix(_PREFIX).strip() for line in lines if line.startswith(_PREFIX)]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What one window of one server brought."""

    tok_s: float
    ttft_p50_ms: float
    ttft_p95_ms: float
    itl_p50_ms: float
    """Between events, not tokens: it is what a person sees."""
    itl_p95_ms: float
    requests: int
    """Answers that were completed in the window."""
    cut_share: float
    """Share of the answers that were as long as they were allowed to be; others ended by themselves."""
    tokens_per_event: float
    window_s: float

    def values(self) -> dict[str, Any]:
        """Its figures, by name."""
        return asdict(self)


def sample(answers: Sequence[Answer], begin: float, end: float) -> Sample:
    """What happened from `begin` to `end`; answers that reach over an edge count with their events within.

    An event counts for tokens / events of its own answer, or of all complete ones while its own is not complete.

    Raises:
        ServerError: nothing did.
    """
    complete = [answer for answer in answers if answer.tokens is not None and answer.events]
    if not complete:
        raise ServerError("no answer was complete: nothing can be counted")
    counted = sum(answer.tokens or 0 for answer in complete)
    mean = counted / sum(len(answer.events) for answer in complete)
    tokens = sum(_within(answer, begin, end) * _per_event(answer, mean) for answer in answers)
    first, gaps = _first(answers, begin, end), _gaps(answers, begin, end)
    if not first or not gaps:
        raise ServerError("a whole window went by without two tokens: nothing can be compared")
    return Sample(
        tok_s=tokens / (end - begin),
        ttft_p50_ms=1000 * statistics.median(first),
        ttft_p95_ms=1000 * percentile(first, 0.95),
        itl_p50_ms=1000 * statistics.median(gaps),
        itl_p95_ms=1000 * percentile(gaps, 0.95),
        requests=sum(begin <= answer.events[-1] < end for answer in complete),
        cut_share=sum(answer.finish == "length" for answer in complete) / len(complete),
        tokens_per_event=mean,
        window_s=end - begin,
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all are not above (nearest rank)."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def _within(answer: Answer, begin: float, end: float) -> int:
    return sum(begin <= at < end for at in answer.events)


def _per_event(answer: Answer, mean: float) -> float:
    return mean if answer.tokens is None or not answer.events else answer.tokens / len(answer.events)


def _first(answers: Sequence[Answer], begin: float, end: float) -> list[float]:
    """Times to the first token of the answers that began in the window; of all, if none did (a slow server)."""
    answered = [answer for answer in answers if answer.events and answer.events[0] < end]
    inside = [answer for answer in answered if answer.events[0] >= begin] or answered
    return [answer.events[0] - answer.sent for answer in inside]


def _gaps(answers: Sequence[Answer], begin: float, end: float) -> list[float]:
    pairs = itertools.chain.from_iterable(itertools.pairwise(answer.events) for answer in answers)
    return [late - early for early, late in pairs if begin <= late < end]
