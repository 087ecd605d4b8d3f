"""Bodies of requests, which together take a bounded part of this process's memory.

What is made of a body takes many times its bytes: four where one character is beyond the first 65,536, and twenty where
all of it is brackets; each token of its text takes some 250 more. So the large ones take turns until they have been
handed to the engine: together they are no larger than the largest that is allowed. A connection whose turn has not come
is not read from, so its client waits. Small ones pass by.

A turn is for those who use it, since all others wait for its end: nobody waits for it whose body has not begun to come,
and who has it keeps sending. One that does not say how long it is may be the largest.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

from starlette.requests import Request

from moorage_runtime.server.errors import BodiesBusyError, BodyTimeoutError, BodyTooLargeError
from moorage_runtime.server.state import ServerState

SMALL = 64 * 2**10
"""Bytes of any connection's body that the HTTP library takes in before it is asked (uvicorn's `HIGH_WATER_LIMIT`)."""
SPELLS = 12
"""A body that has its turn brings `SMALL` bytes more in each such part of its time (5 s of 60: 13 kB/s)."""


class Bodies:
    """The bodies of one server's requests."""

    def __init__(self, state: ServerState, limit: int, seconds: float) -> None:
        """`limit`: bytes of one body, and of all that are not small; `seconds`: how long one may come, or wait."""
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
            BodiesBusyError: its turn did not come in time.
            NotReadyError: the server began to shut down while it waited for its turn.
            ClientDisconnect: its client left.
        """
        announced = request.headers.get("content-length", "")
        size = int(announced) if announced.isdigit() else self._limit
        if size > self._limit:
            raise BodyTooLargeError(self._limit)
        async with AsyncExitStack() as room:
            try:
                body = await self._receive(request, size, room)
            except TimeoutError as error:
                raise BodyTimeoutError(self._seconds, SMALL, self._seconds / SPELLS) from error
            yield body

    async def _receive(self, request: Request, size: int, room: AsyncExitStack) -> bytearray:
        now = asyncio.get_running_loop().time
        body, end = bytearray(), now() + self._seconds
        async with aclosing(request.stream()) as parts:
            more = await self._take_in(parts, body, end)
            if more:
                asked = now()
                await self._wait_for_turn(size, room)
                end += now() - asked
            while more:
                more = await self._take_in(parts, body, min(end, now() + self._seconds / SPELLS))
        return body

    async def _take_in(self, parts: AsyncGenerator[bytes, None], body: bytearray, end: float) -> bool:
        """Add more than `SMALL` bytes to the body, and say so; or what is left of it."""
        enough = len(body) + SMALL
        # Until it is there it is not in flight: that may never be, and costs no answer.
        with self._state.body():
            async with asyncio.timeout_at(end):
                async for part in parts:
                    body += part
                    if len(body) > self._limit:
                        raise BodyTooLargeError(self._limit)
                    if len(body) > enough:
                        return True
        return False

    async def _wait_for_turn(self, size: int, room: AsyncExitStack) -> None:
        turn = asyncio.ensure_future(room.enter_async_context(self._room.take(size)))
        closing = asyncio.ensure_future(self._state.closing())
        try:
            await asyncio.wait((turn, closing), timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
            self._state.require_ready()
            if not turn.done():
                raise BodiesBusyError(self._seconds)
        finally:
            closing.cancel()
            turn.cancel()
            await asyncio.wait((turn,))  # it may hold the place at the head of the queue


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
