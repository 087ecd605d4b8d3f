"""The answer to one HTTP request while it grows: one or several sequences, as text."""

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from tokenizers import Tokenizer

from moorage_runtime.engine.messages import TokenLogprobs
from moorage_runtime.server.detokenize import TextStream
from moorage_runtime.server.engine_client import EngineClient
from moorage_runtime.server.errors import ApiError, EngineFailedError, RequestTimeoutError
from moorage_runtime.server.metrics import Metrics
from moorage_runtime.server.outputs import Arrival, OutputStream


@dataclass(frozen=True, slots=True)
class Delta:
    """What is new about one sequence (`index`: the choice's)."""

    index: int
    text: str
    token_ids: Sequence[int] = ()
    """Tokens to show log-probabilities of: those of the text, without the token that ended it."""
    logprobs: Sequence[TokenLogprobs] = ()
    finish_reason: str | None = None
    """In OpenAI's words, which know no time limit: an answer that was cut by one has `length`."""
    stop_reason: str | None = None
    """`timeout` where that was the limit."""


@dataclass(slots=True)
class Usage:
    """OpenAI's `usage`, counted as outputs arrive."""

    prompt_tokens: int
    """A prompt with several choices counts once."""
    completion_tokens: int = 0
    cached_tokens: int = 0


@dataclass(slots=True)
class _Sequence:
    prompt_tokens: int
    text: TextStream
    generated: int = 0
    cached: int = 0
    last_at: float = 0.0
    done: bool = False


@dataclass(kw_only=True)
class Answer:
    """Iterate over `deltas` to its end, and `close` it whatever happens; `usage` is complete at the end."""

    client: EngineClient
    stream: OutputStream
    metrics: Metrics
    tokenizer: Tokenizer
    stops: Sequence[str]
    prompt_tokens: Sequence[int]
    """Of each sequence; those of one prompt follow each other."""
    choices: int
    """Sequences of each prompt."""
    ending_ids: frozenset[int]
    arrived: float
    usage: Usage = field(init=False)

    def __post_init__(self) -> None:
        """Begin with nothing generated."""
        self.usage = Usage(sum(self.prompt_tokens[:: self.choices]))
        self._sequences = [_Sequence(count, TextStream(self.tokenizer, self.stops)) for count in self.prompt_tokens]

    async def deltas(self) -> AsyncIterator[list[Delta]]:
        """What is new, several sequences and tokens at a time when the reader is slower than the engine.

        Raises:
            EngineFailedError: the engine gave a sequence up.
            RequestTimeoutError: the time was over before the first token.
        """
        left = len(self._sequences)
        while left:
            batch, failure = self._batch(await self.stream.take())
            left -= sum(delta.finish_reason is not None for delta in batch)
            if batch:
                yield batch
            if failure is not None:
                raise failure
        self.usage.cached_tokens = self._cached_tokens()

    def close(self) -> None:
        """Cancel what still runs: the client left, a stop string was found, or an error ended the answer."""
        now = time.monotonic()
        unfinished = [index for index, sequence in enumerate(self._sequences) if not sequence.done]
        self.client.cancel([self.stream.ids[index] for index in unfinished])
        for index in unfinished:
            self._finish(self._sequences[index], "abort", now)

    def _batch(self, arrivals: Sequence[Arrival]) -> tuple[list[Delta], ApiError | None]:
        """What is new, and the failure that ended it: what came before that is the client's all the same."""
        batch: list[Delta] = []
        try:
            for arrival in arrivals:
                if self._sequences[arrival.choice].done:
                    continue
                delta = self._delta(arrival)
                if delta is not None:
                    batch.append(delta)
        except ApiError as failure:
            return batch, failure
        return batch, None

    def _delta(self, arrival: Arrival) -> Delta | None:
        output, sequence = arrival.output, self._sequences[arrival.choice]
        self._count(sequence, arrival)
        text = sequence.text.push(output.token_ids)
        if output.finish_reason is None and not sequence.text.stopped:
            if not text and not output.logprobs:
                return None
            return Delta(arrival.choice, text, output.token_ids, output.logprobs or ())
        return self._last(arrival, text)

    def _last(self, arrival: Arrival, text: str) -> Delta:
        """The end of one sequence."""
        output, sequence = arrival.output, self._sequences[arrival.choice]
        reason = self._reason(arrival)
        text += sequence.text.finish()
        if sequence.text.stopped:
            reason = "stop"
            self.client.cancel([self.stream.ids[arrival.choice]])
        self._finish(sequence, reason, arrival.at)
        shown = len(output.token_ids)
        if reason == "stop" and shown and output.token_ids[-1] in self.ending_ids:
            shown -= 1
        logprobs = (output.logprobs or [])[:shown]
        if reason == "timeout":
            return Delta(arrival.choice, text, output.token_ids[:shown], logprobs, "length", "timeout")
        return Delta(arrival.choice, text, output.token_ids[:shown], logprobs, reason)

    def _reason(self, arrival: Arrival) -> str:
        """Why the engine ended the sequence; an error if that leaves the client without an answer."""
        output, sequence = arrival.output, self._sequences[arrival.choice]
        reason = output.finish_reason or "stop"
        if reason in ("error", "abort"):
            self._finish(sequence, reason, arrival.at)
            raise EngineFailedError(output.error or "The server ended before the answer was complete.")
        if reason == "timeout" and not self.usage.completion_tokens:
            self._finish(sequence, reason, arrival.at)
            raise RequestTimeoutError(arrival.at - self.arrived)
        return reason

    def _count(self, sequence: _Sequence, arrival: Arrival) -> None:
        new = len(arrival.output.token_ids)
        sequence.cached = max(sequence.cached, arrival.output.cached_prompt_tokens)
        if not new:
            return
        self.usage.completion_tokens += new
        if sequence.generated:
            self.metrics.next_token((arrival.at - sequence.last_at) / new)
        else:
            self.metrics.first_token(arrival.at - self.arrived, queued=arrival.output.queue_seconds)
        sequence.generated += new
        sequence.last_at = arrival.at

    def _cached_tokens(self) -> int:
        """Of each prompt, what was there before any of its choices: later ones always find what the first computed."""
        cached = [sequence.cached for sequence in self._sequences]
        return sum(min(cached[start : start + self.choices]) for start in range(0, len(cached), self.choices))

    def _finish(self, sequence: _Sequence, reason: str, at: float) -> None:
        sequence.done = True
        self.metrics.finished(
            reason, seconds=at - self.arrived, prompt_tokens=sequence.prompt_tokens, generated=sequence.generated
        )
