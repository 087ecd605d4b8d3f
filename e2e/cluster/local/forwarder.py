"""Carries connections from outside a network namespace to an address inside.

It is handed a listening socket that was opened outside and then started inside: a socket stays in the namespace where
it was opened, a connection is made in the one where the process runs. Run by its path, with nothing but Python.

    forwarder.py FILE_DESCRIPTOR HOST PORT
"""

import asyncio
import contextlib
import socket
import sys

_CHUNK = 1 << 16


async def forward(listener: socket.socket, host: str, port: int) -> None:
    """Take connections for ever and carry each to `host`:`port`."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection(host, port)
        except OSError:  # nobody listens there now: the caller sees a closed connection, as if it had asked itself
            writer.close()
            return
        await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))
        for end in (writer, inner_writer):
            end.close()

    server = await asyncio.start_server(carry, sock=listener)
    await server.serve_forever()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction to its end, then pass the end on: the other direction may go on."""
    with contextlib.suppress(OSError):  # either end was reset; closing the other one tells it
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
            return
    writer.close()


if __name__ == "__main__":
    descriptor, target, target_port = sys.argv[1:]
    asyncio.run(forward(socket.socket(fileno=int(descriptor)), target, int(target_port)))
