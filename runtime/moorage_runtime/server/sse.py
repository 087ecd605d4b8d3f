"""Server-sent events, and the client that may leave before the answer is complete."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from moorage_runtime.server.errors import ApiError
from moorage_runtime.server.events import event

T = TypeVar("T")
DIRECT_SEND = "moorage.direct_send"
"""Key of an ASGI scope: the server's own `send`, for the body of an answer whose headers have been sent."""


class ClientLeftError(Exception):
    """The client closed the connection; nobody reads an answer any more."""


async def unless_client_leaves(receive: Receive, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client closes the connection.

    Raises:
        ClientLeftError: it did.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientLeftError
        return task.result()
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
            # Its clean-up cancels the sequences in the engine: wait for it, so that nothing outlives the request.
            await asyncio.wait({task})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Writes events as they come.

    Headers leave with the first event, so that what fails before any token has its true HTTP status. What fails later
    is an error event, after which the stream ends without `[DONE]`.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        headers: Mapping[str, str],
        on_error: Callable[[ApiError], Response],
    ) -> None:
        super().__init__(headers={**headers, "cache-control": "no-cache", "x-accel-buffering": "no"})
        # Its length is not known; Response has written that of an empty body.
        self.raw_headers = [item for item in self.raw_headers if item[0] != b"content-length"]
        self._events = events
        self._on_error = on_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the response."""
        try:
            await unless_client_leaves(receive, self._write(scope, receive, send))
        except ClientLeftError:
            return

    async def _write(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False
        write = scope.get(DIRECT_SEND, send)
        async with aclosing(self._events) as events:
            try:
                async for chunk in events:
                    if not begun:
                        begun = True
                        await send(self._start())
                    await write({"type": "http.response.body", "body": chunk, "more_body": True})
            except ApiError as error:
                if not begun:
                    await self._on_error(error)(scope, receive, send)
                    return
                await send({"type": "http.response.body", "body": event(error.body()), "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def _start(self) -> dict[str, Any]:
        return {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
