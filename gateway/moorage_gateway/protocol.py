"""HTTP/1.1 towards clients: uvicorn's protocol, with limits on a request's head.

uvicorn leaves those to a proxy in front of it. Here there is none.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from moorage_gateway.answers import error_body
from moorage_gateway.request import Limits

_NO_UPGRADE: Final = (
    "This gateway speaks HTTP/1.1 only: send the request without `Upgrade` (set your client to HTTP/1.1)."
)


class UpgradeRefusedError(Exception):
    """After a request to upgrade the parser takes no body: its bytes would be read as the next request."""


class LimitedProtocol(HttpToolsProtocol):
    """Bounds the bytes and the time of an unfinished request head, and answers what is no HTTP in OpenAI's shape."""

    limits: Limits
    leaving: Callable[[], bool]
    """Whether this gateway is about to go: then each connection ends with the answer to its next request."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = False
        self._head_begins = False
        self._head_bytes = 0
        self._invalid_because = ""
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A new connection owes a request."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is owed any more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, which keeps an unfinished head in memory, and see that it does not keep too much.

        The read that a head begins in is not counted, because the end of the last body may be in it. It is bounded by
        itself.
        """
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        self._head_bytes += 0 if self._head_begins else len(data)
        self._head_begins = False
        if self._head_bytes > self.limits.header_bytes:
            self._refuse(431, f"The request's headers are longer than {self.limits.header_bytes} bytes.")
        elif self._deadline is None:
            self._await_head()

    def on_message_begin(self) -> None:
        """The first byte of a head."""
        super().on_message_begin()
        self._in_head, self._head_begins, self._head_bytes = True, True, 0

    def on_headers_complete(self) -> None:
        """The head is there; the application judges it."""
        self._in_head = False
        self._stop_waiting()
        if self.parser.should_upgrade():
            self._invalid_because = _NO_UPGRADE
            raise UpgradeRefusedError  # the parser makes it an error of its own, which ends in `send_400_response`
        super().on_headers_complete()
        if self.leaving():
            self.cycle.keep_alive = False  # which the answer's head tells the client, so that it connects elsewhere

    def send_400_response(self, msg: str) -> None:
        """Called for bytes that are no valid HTTP, or none that we speak."""
        self._refuse(400, self._invalid_because or msg)

    def _refuse(self, status: int, message: str) -> None:
        answering = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if not answering:  # else the bytes would end up in the middle of an answer
            body = error_body(message, "invalid_request_error")
            head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
            self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()

    def _await_head(self) -> None:
        self._deadline = self.loop.call_later(self.limits.seconds, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def protocol(limits: Limits, leaving: Callable[[], bool]) -> type[asyncio.Protocol]:
    """The protocol class with what it depends on, as uvicorn's `http` setting takes it."""
    return type("BoundProtocol", (LimitedProtocol,), {"limits": limits, "leaving": staticmethod(leaving)})
