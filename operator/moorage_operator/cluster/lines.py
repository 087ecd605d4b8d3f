"""Lines of a stream that never ends, such as a watch: each as soon as it is complete."""

from collections.abc import AsyncIterable, AsyncIterator
from typing import Final

LONGEST: Final = 64 * 1024 * 1024
"""Bytes. A gateway's whole view of 10,000 deployments is about 20 MB; more is no line of ours."""


async def lines(pieces: AsyncIterable[bytes], longest: int = LONGEST) -> AsyncIterator[bytes]:
    """Put pieces together to lines, without their ends. What follows the last end of a line is no line.

    Raises:
        ValueError: a line is longer than `longest`, so that no sender can fill the memory.
    """
    begun = bytearray()
    async for piece in pieces:
        *ended, rest = piece.split(b"\n")
        for part in ended:
            begun += part
            yield bytes(begun)
            begun.clear()
        begun += rest
        if len(begun) > longest:
            raise ValueError(f"a line of more than {longest} bytes")
