"""Large bodies: they take turns, so that many at once do not fill the memory; small ones pass by."""

import asyncio
import json
import re
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from starlette.requests import ClientDisconnect, Request

from moorage_runtime.engine.messages import Started
from moorage_runtime.server.bodies import SMALL, Bodies
from moorage_runtime.server.errors import BodiesBusyError, BodyTimeoutError, BodyTooLargeError, NotReadyError
from moorage_runtime.server.state import ServerState

MIB = 2**20
CLIENTS = 64
LONG = 120.0


# Whose turn it is: with clients that send what the test says, when it says so.


@pytest.fixture
def state():
    state = ServerState()
    state.ready(Started("fake", 260, 512, 4096, 4, [256], "float32", 1, "none", 0, 0.1))
    return state


class Client:
    """A request, and what became of it; its room is kept until the client is `done`."""

    def __init__(self, state, bodies, size=None):
        self.state, self.bodies, self.done = state, bodies, asyncio.Event()
        self.messages, self.length = asyncio.Queue(), None
        headers = [] if size is None else [(b"content-length", str(size).encode())]
        self.request = Request({"type": "http", "method": "POST", "headers": headers}, self.messages.get)
        self.served = asyncio.ensure_future(self._serve())

    async def _serve(self):
        with self.state.request():
            async with self.bodies.read(self.request) as body:
                self.length = len(body)
                await self.done.wait()

    async def send(self, size, *, more=False):
        self.messages.put_nowait({"type": "http.request", "body": b" " * size, "more_body": more})
        await settled()

    async def leave(self):
        self.messages.put_nowait({"type": "http.disconnect"})
        await settled()

    async def end(self):
        self.done.set()
        await self.served


async def settled():
    """Everybody has gone as far as they can."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
async def client(state):
    """Makes clients of one server that takes in 1 MiB of large bodies at a time."""
    clients, bodies = [], {}

    def make(size=None, seconds=LONG):
        clients.append(Client(state, bodies.setdefault(seconds, Bodies(state, MIB, seconds)), size))
        return clients[-1]

    yield make
    for one in clients:
        one.served.cancel()
    await asyncio.gather(*(one.served for one in clients), return_exceptions=True)


async def test_a_large_body_waits_until_the_one_before_it_is_done_with(client):
    first, second, small = client(700_000), client(700_000), client(SMALL)
    await first.send(700_000)
    await second.send(700_000)
    await small.send(SMALL)
    assert (first.length, second.length, small.length) == (700_000, None, SMALL)
    await first.end()
    await settled()
    assert second.length == 700_000


async def test_smaller_ones_share_the_room(client):
    clients = [client(300_000) for _ in range(4)]
    for one in clients:
        await one.send(300_000)
    assert [one.length for one in clients] == [300_000, 300_000, 300_000, None]


@pytest.mark.parametrize("sent", [0, SMALL])
async def test_a_body_that_has_not_begun_to_come_takes_no_turn(client, sent):
    silent, other = client(MIB), client(MIB)
    await silent.send(sent, more=True)
    await other.send(MIB)
    assert other.length == MIB


async def test_a_body_that_does_not_say_how_long_it_is_may_be_the_largest(client):
    first, second = client(), client()
    await first.send(SMALL + 1, more=True)
    await second.send(70_000)
    assert second.length is None
    await first.send(10)
    await first.end()
    await settled()
    assert (first.length, second.length) == (SMALL + 11, 70_000)


async def test_one_that_does_not_say_so_and_is_small_passes_by(client):
    large, small = client(MIB), client()
    await large.send(MIB)
    await small.send(SMALL)
    assert small.length == SMALL


async def test_one_that_turns_out_too_large_is_refused_and_makes_room(client):
    large, next_ = client(), client(MIB)
    await large.send(SMALL + 1, more=True)
    await large.send(MIB, more=True)
    with pytest.raises(BodyTooLargeError):
        await large.served
    await next_.send(MIB)
    assert next_.length == MIB


@pytest.mark.parametrize("waiting", [False, True])
async def test_a_client_that_leaves_makes_room(client, waiting):
    """The turn of one that left while it waited for it is over at once."""
    first, leaves, next_ = client(MIB), client(MIB), client(MIB)
    if waiting:
        await first.send(MIB)
    await leaves.send(SMALL + 1, more=True)
    await next_.send(MIB)
    await leaves.leave()
    if waiting:
        await first.end()
    with pytest.raises(ClientDisconnect):
        await leaves.served
    await settled()
    assert next_.length == MIB


async def test_a_large_body_that_stops_coming_makes_room(client):
    slow, next_ = client(MIB, 2.4), client(MIB, 2.4)
    await slow.send(SMALL + 1, more=True)
    await next_.send(MIB)
    assert next_.length is None
    with pytest.raises(BodyTimeoutError, match=r"within 2\.4 s, or .* no 65536 bytes more within 0\.2 s"):
        await slow.served
    await settled()
    assert next_.length == MIB


async def test_a_large_body_that_keeps_coming_is_not_waited_for_longer_than_its_time(state):
    async def part():
        await asyncio.sleep(0.001)
        return {"type": "http.request", "body": b" " * (SMALL // 4), "more_body": True}

    request = Request({"type": "http", "method": "POST", "headers": []}, part)
    with state.request(), pytest.raises(BodyTimeoutError):
        async with Bodies(state, 100 * MIB, 0.2).read(request):
            pass


@pytest.mark.parametrize("sent", [1, SMALL])
async def test_a_body_that_does_not_come_is_not_waited_for(client, sent):
    slow = client(SMALL + 1, 0.01)
    await slow.send(sent, more=True)
    with pytest.raises(BodyTimeoutError):
        await slow.served


async def test_a_turn_that_does_not_come_is_not_waited_for(client):
    first, second = client(MIB, 0.5), client(MIB, 0.5)
    await first.send(MIB)
    await second.send(MIB)
    with pytest.raises(BodiesBusyError, match=r"did not come within 0\.5 s") as refused:
        await second.served
    assert (refused.value.status, refused.value.headers) == (503, {"retry-after": "1"})
    await first.end()
    third = client(MIB, 0.5)
    await third.send(MIB)
    assert third.length == MIB


async def test_who_waits_for_a_turn_is_in_flight_and_told_when_the_server_shuts_down(state, client):
    first, waits, silent = client(MIB), client(MIB), client(MIB)
    await first.send(SMALL + 1, more=True)
    await waits.send(MIB)
    idle = asyncio.ensure_future(state.idle())
    await settled()
    assert not idle.done()
    state.drain()
    with pytest.raises(NotReadyError, match="shutting down"):
        await waits.served
    await idle
    assert not first.served.done()  # what may never come is not waited for
    assert not silent.served.done()


async def test_who_comes_for_a_turn_afterwards_is_told_as_well(state, client):
    late = client(MIB)
    state.drain()
    await late.send(MIB)
    with pytest.raises(NotReadyError):
        await late.served


# What that is for, in the real server.


def body_of(size):
    """A completion of one token whose body is that long."""
    head = b'{"model": "echo", "prompt": "a", "max_tokens": 1'
    return head + b" " * (size - len(head) - 1) + b"}"


class Sender:
    """A client that sends as much of its body as it is told."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def send(self, body):
        self.writer.write(body)
        await self.writer.drain()

    async def status(self):
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head)[1])
        self.answer = json.loads(await self.reader.readexactly(length))
        return int(head.split()[1])


@asynccontextmanager
async def sender(server, framing):
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"POST /v1/completions HTTP/1.1\r\nhost: x\r\n{framing}\r\n\r\n".encode())
    try:
        yield Sender(reader, writer)
    finally:
        writer.close()


def resident(server):
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


@pytest.mark.parametrize("announced", [True, False])
async def test_many_at_once_do_not_fill_the_memory(serve, announced):
    server, body = serve(), body_of(MIB - 100)
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    sent, framing = (body, f"content-length: {len(body)}") if announced else (chunked, "transfer-encoding: chunked")
    before, most = resident(server), 0
    async with AsyncExitStack() as open_:
        senders = [await open_.enter_async_context(sender(server, framing)) for _ in range(CLIENTS)]
        sending = [asyncio.ensure_future(each.send(sent)) for each in senders]
        for each in senders:
            assert await each.status() == 200
            most = max(most, resident(server))
        await asyncio.gather(*sending)
    assert most - before < 0.65 * CLIENTS * MIB  # two reads of each: one shows that it comes


async def test_a_body_that_does_not_come_makes_room_for_the_next(serve):
    server, other = serve("--body-seconds", "12"), body_of(MIB)
    async with sender(server, f"content-length: {MIB}") as slow, sender(server, f"content-length: {MIB}") as next_:
        await slow.send(other[: SMALL + 1])
        await next_.send(other)
        assert await slow.status() == 408
        assert (slow.answer["error"]["code"], await slow.reader.read()) == ("body_timeout", b"")
        assert await next_.status() == 200
