"""A replica that costs next to nothing: every completion is 32 tokens as server-sent events, at once or paced.

The body's `pace_ms` says how far apart the tokens are; 0 sends them all in one write, the most that a fast engine can
do to a proxy.
"""

import asyncio
import sys

import orjson
import uvloop

TOKENS = 32
_EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"chat",'
    b'"choices":[{"index":0,"delta":{"content":"hello"},"finish_reason":null}]}\n\n'
)
_CHUNK = b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT)
_END = b"0\r\n\r\n"
_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-moorage-load: running=1,waiting=0\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_BURST = _HEAD + _CHUNK * TOKENS + _END


class Replica(asyncio.Protocol):
    """One connection; requests on it come one after the other and carry a content-length."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._buffer = b""
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            body_end = end + 4 + length
            if len(self._buffer) < body_end:
                return
            body, self._buffer = self._buffer[end + 4 : body_end], self._buffer[body_end:]
            pace = orjson.loads(body).get("pace_ms", 0) / 1000 if body else 0
            if pace:
                self._transport.write(_HEAD)
                self._send_next(pace, TOKENS, self._loop.time())
            else:
                self._transport.write(_BURST)

    def _send_next(self, pace: float, left: int, due: float) -> None:
        if left:
            self._transport.write(_CHUNK)
            self._loop.call_at(due + pace, self._send_next, pace, left - 1, due + pace)
        else:
            self._transport.write(_END)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Replica, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
