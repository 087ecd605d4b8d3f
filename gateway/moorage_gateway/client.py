"""The client's side of one exchange."""

import asyncio
from typing import Final, Self

from moorage_gateway.answers import Answer, Headers, Receive, Send, send_answer

_EVENT_END: Final = b"\n\n"
_EVENTS: Final[Headers] = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


class Client:
    """Sends an answer to the client, and cancels the task that makes it as soon as the client goes away.

    Use it as a context manager around that work; a cancellation that it caused ends with the block.

    Attributes:
        started: Whether the client has got the first byte.
        answered: Whether it has got the first byte of an answer; from then on nothing can be taken back.
        gone: Whether the client went away before its answer was complete.
        is_stream: Whether what was started is a stream of server-sent events.
        status: What the client got; 0 before.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self.started = False
        self.answered = False
        self.gone = False
        self.is_stream = False
        self.status = 0
        self._ended = False
        self._tail = b""
        self._receive, self._send = receive, send

    async def __aenter__(self) -> Self:
        """Start to watch for the client's end of the connection."""
        self._work = asyncio.current_task()
        self._watch = asyncio.create_task(self._cancel_work_when_gone())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        """Stop watching; swallow the cancellation when it was this client's."""
        self._watch.cancel()
        if kind is asyncio.CancelledError and self.gone and self._work is not None:
            return self._work.uncancel() == 0
        return False

    async def keep_alive(self, words: bytes) -> None:
        """Tell a client that wants a stream of events that it is still waiting for the first one."""
        if not self.started:
            await self._head(200, _EVENTS, is_stream=True)
        await self.write(b": " + words + _EVENT_END)

    async def start(self, status: int, headers: Headers, *, is_stream: bool) -> None:
        """Begin an answer whose length is not known. A client that was kept alive has got a head already."""
        self.answered = True
        if not self.started:
            await self._head(status, headers, is_stream=is_stream)

    async def write(self, chunk: bytes) -> None:
        """Send bytes of the body, as they are."""
        self._tail = chunk
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end(self) -> None:
        """The body is complete."""
        self._ended = True
        await self._send({"type": "http.response.body", "body": b""})

    async def whole(self, answer: Answer) -> None:
        """Send an answer in one piece; as an event where the client was kept alive and expects those."""
        self.answered = True
        if self.started:
            await self.end_with_event(answer.body)
            return
        self.started, self._ended, self.status = True, True, answer.status
        await send_answer(self._send, answer)

    async def end_with_event(self, data: bytes) -> None:
        """End a stream of server-sent events with one more event, whatever the last bytes were."""
        separator = b"" if self._tail.endswith(_EVENT_END) else _EVENT_END
        await self.write(separator + b"data: " + b"\ndata: ".join(data.splitlines()) + _EVENT_END)
        await self.end()

    async def _head(self, status: int, headers: Headers, *, is_stream: bool) -> None:
        self.started, self.status, self.is_stream = True, status, is_stream
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _cancel_work_when_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._ended and self._work is not None:
            self.gone = True
            self._work.cancel()
