"""What a client may not do to the gateway, byte by byte."""

import asyncio

import pytest

from moorage_gateway.request import Limits

HEAD = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n"


async def _talk(gateway, *parts: bytes) -> bytes:
    """Send bytes, and read until the gateway closes the connection."""
    reader, writer = await gateway.connect()
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        async with asyncio.timeout(20):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


async def test_a_body_that_is_declared_too_long_is_413_before_it_is_read(gateway, serve, make_replica):
    replica = await make_replica()
    serve(replica)
    reader, writer = await gateway.connect()
    writer.write(HEAD + b"content-length: 100001\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"The request's body is longer than 100000 bytes." in await reader.readuntil(b"}}")
    assert not replica.seen
    writer.transport.abort()


async def test_a_chunked_body_that_grows_too_long_is_413(gateway, ask):
    async def endless():
        while True:
            yield b"x" * 10_000

    reader, writer = await gateway.connect()
    writer.write(HEAD + b"transfer-encoding: chunked\r\n\r\n")
    chunk = b"1000\r\n" + b"x" * 4096 + b"\r\n"
    for _ in range(25):
        writer.write(chunk)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    writer.transport.abort()


async def test_the_connection_goes_on_after_a_413(gateway, serve, make_replica):
    serve(await make_replica())
    reader, writer = await gateway.connect()
    body = b'{"model":"chat"}'
    writer.write(HEAD + b"content-length: 200000\r\n\r\n" + b"x" * 200_000)
    writer.write(HEAD + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body)
    answers = await reader.read()
    assert answers.count(b"HTTP/1.1 ") == 2
    assert answers.startswith(b"HTTP/1.1 413 ")
    assert b"HTTP/1.1 200 " in answers
    writer.transport.abort()


async def test_a_client_that_waits_for_leave_to_send_too_much_is_closed(gateway):
    answer = await _talk(gateway, HEAD + b"expect: 100-continue\r\ncontent-length: 100001\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer
    assert b"100 Continue" not in answer


async def test_a_client_that_waits_for_leave_gets_it(gateway, serve, make_replica):
    serve(await make_replica())
    reader, writer = await gateway.connect()
    body = b'{"model":"chat"}'
    writer.write(HEAD + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(body))
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.transport.abort()


@pytest.mark.parametrize(
    "head",
    [
        b"x-long: " + b"a" * 9000 + b"\r\n",
        b"".join(b"x-%d: %s\r\n" % (n, b"a" * 90) for n in range(100)),
    ],
)
async def test_headers_that_are_too_long_are_431(gateway, head):
    answer = await _talk(gateway, HEAD + head + b"connection: close\r\ncontent-length: 2\r\n\r\n{}")
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"The request's headers are longer than 8192 bytes." in answer


@pytest.mark.parametrize("start", [HEAD + b"x-endless: ", b"GET /", HEAD], ids=["header", "path", "count"])
async def test_a_head_without_an_end_is_431_and_takes_no_memory(gateway, start):
    reader, writer = await gateway.connect()
    writer.write(start)
    piece = b"x: y\r\n" * 100 if start == HEAD else b"a" * 600
    sent = 0

    async def flood():
        nonlocal sent
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
            sent += len(piece)

    flooding = asyncio.create_task(flood())
    async with asyncio.timeout(20):
        answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 431 ")
    flooding.cancel()
    await asyncio.gather(flooding, return_exceptions=True)
    writer.transport.abort()


class TestSlowClients:
    """They may not hold a connection for longer than the limit; here it is short."""

    @pytest.fixture
    def limits(self):
        return Limits(header_bytes=8192, body_bytes=100_000, seconds=0.2)

    @pytest.mark.parametrize("sent", [b"", HEAD, b"P"])
    async def test_no_head(self, gateway, sent):
        assert await _talk(gateway, sent) == b""

    async def test_half_a_second_head(self, gateway, serve, make_replica):
        serve(await make_replica())
        body = b'{"model":"chat"}'
        request = HEAD + b"content-length: %d\r\n\r\n" % len(body) + body
        answer = await _talk(gateway, request + b"POST /v1/comp")
        assert answer.startswith(b"HTTP/1.1 200 ")

    async def test_half_a_body(self, gateway):
        answer = await _talk(gateway, HEAD + b"connection: close\r\ncontent-length: 20\r\n\r\n{")
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"The request's body did not arrive within 0.2 s." in answer

    async def test_a_slow_answer_is_not_a_slow_client(self, gateway, serve, make_replica):
        async def behave(connection, _seen):
            await connection.start_stream()
            for _ in range(4):
                await asyncio.sleep(0.1)  # in all twice the client's limit
                await connection.chunk(b": ping\n\n")
            await connection.end_stream()

        serve(await make_replica(behave))
        body = b'{"model":"chat"}'
        reader, writer = await gateway.connect()
        writer.write(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
        answer = await reader.readuntil(b"\r\n0\r\n\r\n")
        assert answer.count(b": ping\n\n") == 4
        writer.write(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
        assert (await reader.readuntil(b"\r\n0\r\n\r\n")).count(b": ping\n\n") == 4
        writer.transport.abort()


async def test_a_connection_may_idle_for_longer_than_clients_and_load_balancers_keep_one(gateway):
    """Who closes first must be the one who sends next; else a request is cut on its way."""
    assert gateway.server.config.timeout_keep_alive > 60


async def test_a_client_that_leaves_within_its_body_leaves_nothing(gateway, serve, make_replica, until):
    replica = await make_replica()
    serve(replica)
    _, writer = await gateway.connect()
    writer.write(HEAD + b"content-length: 20\r\n\r\n{")
    await until(lambda: gateway.server.server_state.tasks)
    writer.transport.abort()
    await until(lambda: not gateway.server.server_state.tasks)
    assert gateway.figure("moorage_gateway_refused_total", reason="client_gone") == 1
    assert not replica.seen
