"""Bodies of requests, which together take a bounded part of this process's memory.

What is made of a body takes many times its bytes: four where one character is beyond the first 65,536, and twenty where
all of it is brackets; each token of its text takes some 250 more. So the large ones take turns, from before they are
received until they have been handed to the engine: together they are no larger than the largest that is allowed. A
connection whose turn has not come is not read from, so its client waits. Small ones pass by; one that does not say how
long it is may be the largest.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from starlette.requests import Request

from moorage_runtime.server.errors import BodyTimeoutError, BodyTooLargeError
from moorage_runtime.server.state import ServerState

SMALL = 64 * 2**10
"""Bytes of any connection's body that the HTTP library takes in before it is asked (uvicorn's `HIGH_WATER_LIMIT`)."""


class Bodies:
    """The bodies of one server's requests."""

    def __init__(self, state: ServerState, limit: int, seconds: float) -> None:
        """`limit`: bytes of one body, and of all that are not small; `seconds`: how long one may be on the way."""
        self._state = state
        self._limit = limit
        self._seconds = seconds
        self._room = _Room(limit)

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytearray]:
        """The body; its room is kept until the caller is done with it.

        Raises:
            BodyTooLargeError: it is, or says that it will be.
            BodyTimeoutError: it did not arrive in time.
            ClientDisconnect: its client left.
        """
        announced = request.headers.get("content-length", "")
        size = int(announced) if announced.isdigit() else self._limit
        if size > self._limit:
            raise BodyTooLargeError(self._limit)
        async with AsyncExitStack() as room:
            # Until it is there it is not in flight: that may never be, and costs no answer.
            with self._state.body():
                if size > SMALL:
                    await room.enter_async_context(self._room.take(size))
                body = await self._receive(request)
            yield body

    async def _receive(self, request: Request) -> bytearray:
        body = bytearray()
        try:
            async with asyncio.timeout(self._seconds):
                async for part in request.stream():
                    body += part
                    if len(body) > self._limit:
                        raise BodyTooLargeError(self._limit)
        except TimeoutError as error:
            raise BodyTimeoutError(self._seconds) from error
        return body


class _Room:
    """So many bytes, given in the order in which they are asked for."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._next = asyncio.Lock()  # whoever has it waits for room, all others for it
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def take(self, size: int) -> AsyncIterator[None]:
        """Wait for so many bytes, and have them."""
        async with self._next:
            while size > self._free:
                self._freed.clear()
                await self._freed.wait()
            self._free -= size
        try:
            yield
        finally:
            self._free += size
            self._freed.set()
