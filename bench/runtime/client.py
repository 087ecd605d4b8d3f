"""A client that costs little: one kept-open connection, C parsers for HTTP and JSON, no copy of the text.

It runs on the cores that it measures, so that what it takes is measured as well.
"""

import asyncio
import time
from contextlib import suppress
from typing import cast

import httptools

from bench.runtime.answers import Answer, EventStream, ServerError

_OK = 200


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection, one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[None] | None = None
        self._forget()

    def ask(self, port: int, body: bytes, answer: Answer) -> asyncio.Future[None]:
        """Send a request; done when the answer, which fills `answer`, is complete.

        Raises:
            ConnectionResetError: the server has closed the connection; also from the future, if nothing came.
        """
        if self._transport is None:
            raise ConnectionResetError("the connection is closed")
        self._forget()
        self._answer = answer
        self._done = asyncio.get_running_loop().create_future()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\naccept: text/event-stream\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self._transport.write(head.encode() + body)
        return self._done

    @property
    def open(self) -> bool:
        """Whether another request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        """Leave, in the middle of an answer or not."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio calls it."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Asyncio calls it."""
        self._now = time.monotonic()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, ServerError) as error:
            # What a callback raises, httptools wraps.
            self._fail(error.__context__ if isinstance(error.__context__, ServerError) else error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio calls it."""
        self._transport = None
        if self._now == 0:  # nothing came: perhaps it was closed before the request was read
            self._fail(ConnectionResetError("a server closed the connection without an answer"))
        else:
            self._fail(exc or ServerError("a server closed the connection before its answer was complete"))

    def on_body(self, piece: bytes) -> None:
        """Httptools calls it."""
        if self._parser.get_status_code() != _OK:
            self._refusal += piece
            return
        for event in self._events.feed(piece):
            self._answer.take(event, self._now)

    def on_message_complete(self) -> None:
        """Httptools calls it."""
        status = self._parser.get_status_code()
        if status != _OK:
            self._fail(ServerError(f"a server answered {status}: {self._refusal[:500]!r}"))
        elif self._done is not None and not self._done.done():
            self._done.set_result(None)
        if not self._parser.should_keep_alive():
            self.close()

    def _forget(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._events = EventStream()
        self._answer = Answer(0.0)
        self._refusal = b""
        self._now = 0.0

    def _fail(self, error: BaseException) -> None:
        self.close()
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)


class Client:
    """Asks one server again and again, over one connection while the server keeps it open."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection = Connection()

    async def ask(self, body: bytes, answer: Answer) -> None:
        """One request, to the end of its answer.

        Raises:
            ServerError: it was refused, or broken off.
        """
        try:
            if self._connection.open:
                # llama.cpp says that it keeps a connection open, and closes it (RFC 9112, 9.3.1: ask again).
                with suppress(ConnectionResetError):
                    return await self._connection.ask(self._port, body, answer)
            loop = asyncio.get_running_loop()
            _, self._connection = await loop.create_connection(Connection, "127.0.0.1", self._port)
            await self._connection.ask(self._port, body, answer)
        except (OSError, httptools.HttpParserError) as error:
            raise ServerError(f"a connection failed: {error}") from error

    def close(self) -> None:
        """Leave."""
        self._connection.close()
