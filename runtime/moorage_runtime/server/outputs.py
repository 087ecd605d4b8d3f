"""The way of generated tokens from the engine's messages to the one request that waits for them."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from moorage_runtime.engine.messages import Output

# Tokens that may wait for a client that does not read. 8,192 are some 300 KiB, and minutes of generation.
MAX_PENDING_TOKENS = 8192


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
        self._tokens = 0
        self._wake = asyncio.Event()

    @property
    def open_ids(self) -> tuple[str, ...]:
        """Sequences whose last output has not arrived."""
        return tuple(self._open)

    def put(self, output: Output, at: float) -> bool:
        """Add an output; False when its reader is too far behind to be given more."""
        if output.id not in self._open:
            return True
        self._batch.append(Arrival(self._index[output.id], output, at))
        self._tokens += len(output.token_ids)
        if output.finish_reason is not None:
            self._open.discard(output.id)
        self._wake.set()
        return self._tokens <= MAX_PENDING_TOKENS

    def fail(self, message: str, at: float) -> None:
        """End every sequence that is still open with an error."""
        for identifier in sorted(self._open):
            self.put(Output(id=identifier, token_ids=[], finish_reason="error", error=message), at)

    async def take(self) -> list[Arrival]:
        """Everything that has arrived, waiting for the first."""
        await self._wake.wait()
        self._wake.clear()
        batch, self._batch, self._tokens = self._batch, [], 0
        return batch
