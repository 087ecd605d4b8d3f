"""The way of generated tokens from the engine's messages to the one request that waits for them."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from moorage_runtime.engine.messages import Output

MAX_PENDING = 4096
"""Tokens, and log-probabilities of tokens, that may wait for a client that does not read: some 1.5 MiB at most."""


class Arrival(NamedTuple):
    """An output of one sequence, and when it came (seconds of the monotonic clock)."""

    choice: int
    output: Output
    at: float


class OutputStream:
    """What has arrived for the sequences of one HTTP request and was not taken yet.

    One writer (the engine client) and one reader (the request's task), both on the event loop.
    """

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = tuple(ids)
        self._index = {identifier: index for index, identifier in enumerate(ids)}
        self._open = set(ids)
        self._batch: list[Arrival] = []
        self._pending = 0
        self._reader: asyncio.Future[None] | None = None

    @property
    def open_ids(self) -> tuple[str, ...]:
        """Sequences whose last output has not arrived."""
        return tuple(self._open)

    def put(self, output: Output, at: float) -> bool:
        """Add an output; False when its reader is too far behind to be given more."""
        if output.id not in self._open:
            return True
        self._batch.append(Arrival(self._index[output.id], output, at))
        self._pending += _weight(output)
        if output.finish_reason is not None:
            self._open.discard(output.id)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
        return self._pending <= MAX_PENDING

    def fail(self, message: str, at: float) -> None:
        """End every sequence that is still open with an error."""
        for identifier in sorted(self._open):
            self.put(Output(id=identifier, token_ids=[], finish_reason="error", error=message), at)

    async def take(self) -> list[Arrival]:
        """Everything that has arrived, waiting for the first."""
        if not self._batch:
            # A future costs a third of an asyncio.Event, and this is done for every token.
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
            self._reader = None
        batch, self._batch, self._pending = self._batch, [], 0
        return batch


def _weight(output: Output) -> int:
    tokens = len(output.token_ids)
    return tokens if output.logprobs is None else tokens + sum(len(entry.top) for entry in output.logprobs)
