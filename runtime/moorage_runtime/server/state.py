"""Where the server is in its life, and how many requests it holds."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from moorage_runtime.engine.messages import LoadingPhase, Started
from moorage_runtime.server.errors import NotReadyError

Phase = Literal["WaitingForRanks", "LoadingWeights", "WarmingUp", "Joined", "Ready", "Stuck", "Draining", "Failed"]

_STARTING = ("WaitingForRanks", "LoadingWeights", "WarmingUp")
_READY = "The engine takes requests."


class ServerState:
    """The phase, in the words of `/telemetry` and `/readyz`, and the requests in flight."""

    def __init__(self) -> None:
        self.phase: Phase = "LoadingWeights"
        self.message = "The engine is starting."
        self.engine: Started | None = None
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = asyncio.Event()

    def loading(self, phase: LoadingPhase, message: str) -> None:
        """The engine is on its way."""
        if self.phase in _STARTING:
            self.phase, self.message = phase, message

    def joined(self, rank: int, ranks: int) -> None:
        """The engine computes its part of what another one leads."""
        if self.phase in _STARTING:
            self.phase, self.message = "Joined", f"This is rank {rank} of {ranks}: rank 0 takes the requests."

    def ready(self, engine: Started) -> None:
        """The engine takes requests."""
        self.engine = engine
        if self.phase not in ("Draining", "Failed"):
            self.phase, self.message = "Ready", _READY

    def stuck(self, message: str) -> None:
        """The engine has work and makes no step: no more requests until it does."""
        if self.phase in ("Ready", "Stuck"):
            self.phase, self.message = "Stuck", message

    def recovered(self) -> None:
        """The engine makes steps again."""
        if self.phase == "Stuck":
            self.phase, self.message = "Ready", _READY

    def drain(self) -> None:
        """No new requests from here on."""
        if self.phase != "Failed":
            self.phase, self.message = "Draining", "The server is shutting down; running requests finish."
            self._closing.set()

    def fail(self, message: str) -> None:
        """The engine is gone."""
        self.phase, self.message = "Failed", message
        self._closing.set()

    @property
    def alive(self) -> bool:
        """Whether the process and its engine live."""
        return self.phase != "Failed"

    def require_ready(self) -> Started:
        """The engine's description.

        Raises:
            NotReadyError: requests are not taken in this phase.
        """
        if self.phase != "Ready" or self.engine is None:
            raise NotReadyError(self.phase, self.message)
        return self.engine

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request as in flight, until its last byte is written."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    @contextmanager
    def body(self) -> Iterator[None]:
        """Do not count a request as in flight while its body is on the way: that may never end, and costs no answer."""
        self._count(-1)
        try:
            yield
        finally:
            self._count(1)

    def _count(self, more: int) -> None:
        self._in_flight += more
        if self._in_flight:
            self._idle.clear()
        else:
            self._idle.set()

    async def closing(self) -> None:
        """Wait until it is certain that no more requests will be taken."""
        await self._closing.wait()

    async def idle(self) -> None:
        """Wait until no request is in flight."""
        await self._idle.wait()
