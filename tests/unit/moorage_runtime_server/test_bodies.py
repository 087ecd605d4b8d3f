"""Large bodies: they take turns, so that many at once do not fill the memory; small ones pass by."""

import asyncio
import json
import re
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

MIB = 2**20
CLIENTS = 64


@pytest.fixture(scope="module")
def server(serve_once):
    """It takes in 1 MiB of large bodies at a time."""
    return serve_once()


def body_of(size):
    """A completion of one token whose body is that long."""
    head = b'{"model": "echo", "prompt": "a", "max_tokens": 1'
    return head + b" " * (size - len(head) - 1) + b"}"


class Sender:
    """A client that sends as much of its body as it is told."""

    def __init__(self, reader, writer, body):
        self.reader, self.writer, self.body = reader, writer, body

    async def send(self, body):
        self.writer.write(body)
        await self.writer.drain()

    async def status(self):
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head)[1])
        self.answer = json.loads(await self.reader.readexactly(length))
        return int(head.split()[1])


@asynccontextmanager
async def sender(server, body, framing=None):
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    framing = framing or f"content-length: {len(body)}"
    writer.write(f"POST /v1/completions HTTP/1.1\r\nhost: x\r\n{framing}\r\n\r\n".encode())
    try:
        yield Sender(reader, writer, body)
    finally:
        writer.close()


def resident(server):
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


async def continues(client):
    """The server says that it reads now, to a client that asked for its leave."""
    assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")


def asking(body):
    return f"expect: 100-continue\r\ncontent-length: {len(body)}"


async def test_a_large_body_waits_until_the_one_before_it_is_done_with(server):
    body = body_of(700_000)
    async with AsyncExitStack() as open_:
        first, second, third = [await open_.enter_async_context(sender(server, body, asking(body))) for _ in range(3)]
        await continues(first)
        turn = asyncio.ensure_future(continues(second))
        status, _, _ = await server.post("/v1/completions", {"model": "echo", "prompt": "a", "max_tokens": 1})
        assert status == 200  # a small one does not wait
        assert not turn.done()
        await first.send(body)
        assert await first.status() == 200
        await turn
        second.writer.close()  # its room is free again
        await continues(third)
        await third.send(body)
        assert await third.status() == 200


async def test_smaller_ones_share_the_room(server):
    body = body_of(300_000)
    async with AsyncExitStack() as open_:
        senders = [await open_.enter_async_context(sender(server, body, asking(body))) for _ in range(3)]
        for each in senders:
            await continues(each)
        for each in senders:
            await each.send(body)
            assert await each.status() == 200


@pytest.mark.parametrize("announced", [True, False])
async def test_many_at_once_do_not_fill_the_memory(serve, announced):
    server, body = serve(), body_of(MIB - 100)
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    sent, framing = (body, None) if announced else (chunked, "transfer-encoding: chunked")
    before, most = resident(server), 0
    async with AsyncExitStack() as open_:
        senders = [await open_.enter_async_context(sender(server, body, framing)) for _ in range(CLIENTS)]
        sending = [asyncio.ensure_future(each.send(sent)) for each in senders]
        for each in senders:
            assert await each.status() == 200
            most = max(most, resident(server))
        await asyncio.gather(*sending)
    assert most - before < 0.4 * CLIENTS * MIB  # 0.24 were seen: what is taken in before anyone asks for it


async def test_a_body_that_does_not_come_makes_room_for_the_next(serve):
    server, whole, other = serve("--body-seconds", "2"), body_of(MIB), body_of(70_000)
    async with sender(server, whole, asking(whole)) as slow, sender(server, other) as next_:
        await continues(slow)
        await next_.send(other)
        assert await slow.status() == 408
        assert slow.answer["error"]["message"] == "The request's body did not arrive within 2 s."
        assert (slow.answer["error"]["code"], await slow.reader.read()) == ("body_timeout", b"")
        assert await next_.status() == 200
