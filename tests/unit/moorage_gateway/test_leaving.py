"""A gateway that is about to go sends its clients elsewhere before it closes a door on anybody."""

import asyncio

import orjson

EVENT = b'data: {"choices":[]}\n\n'


async def test_connections_end_with_their_next_answer(gateway):
    reader, writer = await gateway.connect()

    async def ask() -> bytes:
        writer.write(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        await reader.readuntil(b"[]}")
        return head

    async with asyncio.timeout(20):
        for _ in range(2):
            assert b"connection: close" not in await ask()
        gateway.leaving = True
        assert b"connection: close" in await ask()
        assert await reader.read() == b""
    writer.close()


async def test_a_stream_that_outlasts_the_gateway_ends_with_an_error_and_is_not_torn(gateway, make_replica, serve, ask):
    async def endless(connection, _seen):
        await connection.start_stream()
        await connection.chunk(EVENT)
        gateway.server.should_exit = True
        await connection.closed_by_peer()

    serve(await make_replica(endless))
    answer = await ask({"model": "chat", "stream": True})
    assert answer.status == 200
    begin, _, last = answer.body.rstrip().rpartition(b"data: ")
    assert begin == EVENT
    assert orjson.loads(last)["error"]["code"] == "gateway_leaving"


async def test_who_has_got_nothing_when_the_gateway_has_to_go_is_told_to_ask_again(gateway, make_replica, serve, ask):
    async def silent(connection, _seen):
        gateway.server.should_exit = True
        await connection.closed_by_peer()

    serve(await make_replica(silent))
    answer = await ask()
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"]["code"] == "gateway_leaving"
