"""A closed loop of clients over raw sockets, in a process of its own; prints what it saw as one JSON line.

Each client sends its next request when the last answer is complete. Of an answer, the framing and the tokens count.
"""

import argparse
import asyncio
import time
from dataclasses import dataclass, field

import orjson
import uvloop

_LAST_CHUNK = b"0\r\n\r\n"


@dataclass
class Tally:
    """What all clients together saw; milliseconds per answer."""

    stop_at: float
    left: int
    milliseconds: list[float] = field(default_factory=list)
    tokens: int = 0
    failed: int = 0


class Client(asyncio.Protocol):
    """One connection that asks again and again."""

    def __init__(self, request: bytes, tally: Tally, done: asyncio.Future[None]) -> None:
        self._request, self._tally, self._done = request, tally, done
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the first time."""
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._ask()

    def data_received(self, data: bytes) -> None:
        """Take the answer, and ask again when it is complete."""
        self._answer += data
        if not self._answer.endswith(_LAST_CHUNK):
            return
        tally = self._tally
        tally.milliseconds.append((time.perf_counter() - self._asked) * 1000)
        tally.tokens += self._answer.count(b"data: ")
        if not self._answer.startswith(b"HTTP/1.1 200"):
            tally.failed += 1
        self._answer = b""
        self._ask()

    def connection_lost(self, _error: Exception | None) -> None:
        """Either we are done or the other side gave up."""
        if not self._done.done():
            self._tally.failed += 1
            self._done.set_result(None)

    def _ask(self) -> None:
        tally = self._tally
        if tally.left <= 0 or time.perf_counter() >= tally.stop_at:
            self._done.set_result(None)
            self._transport.close()
            return
        tally.left -= 1
        self._asked = time.perf_counter()
        self._transport.write(self._request)


async def _load(port: int, clients: int, seconds: float, requests: int, pace_ms: int) -> Tally:
    loop = asyncio.get_running_loop()
    body = orjson.dumps(
        {
            "model": "chat",
            "stream": True,
            "pace_ms": pace_ms,
            "messages": [{"role": "user", "content": "Tell me about harbours. " * 8}],
        }
    )
    request = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        b"accept: */*\r\nuser-agent: bench\r\ncontent-length: %d\r\n\r\n" % len(body)
    ) + body
    tally = Tally(time.perf_counter() + seconds, requests)
    waiting = []
    for _ in range(clients):
        done: asyncio.Future[None] = loop.create_future()
        await loop.create_connection(lambda done=done: Client(request, tally, done), "127.0.0.1", port)  # type: ignore[misc]
        waiting.append(done)
    await asyncio.gather(*waiting)
    return tally


def main() -> None:
    """Load one port and print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--requests", type=int, default=10**9)
    parser.add_argument("--pace-ms", type=int, default=0)
    args = parser.parse_args()
    began = time.perf_counter()
    tally = uvloop.run(_load(args.port, args.clients, args.seconds, args.requests, args.pace_ms))
    seconds = time.perf_counter() - began
    times = sorted(tally.milliseconds)
    print(
        orjson.dumps(
            {
                "requests": len(times),
                "seconds": seconds,
                "rps": len(times) / seconds,
                "tok_s": tally.tokens / seconds,
                "tokens": tally.tokens,
                "failed": tally.failed,
                "p50_ms": times[len(times) // 2],
                "p99_ms": times[min(len(times) - 1, len(times) * 99 // 100)],
            }
        ).decode()
    )


if __name__ == "__main__":
    main()
