"""A gateway that is about to go sends its clients elsewhere before it closes a door on anybody."""

import asyncio


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
