"""What exchanges of numbers go through: memory that ranks of one machine share, or a stream between each two ranks."""

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from moorage_runtime.group.door import Door
from moorage_runtime.group.errors import GroupError
from moorage_runtime.group.messages import Join, Link, decode_link, encode
from moorage_runtime.group.place import Address
from moorage_runtime.group.wire import Wire, WireError

CONNECT_SECONDS = 60.0
_LONGER = 10.0
"""Seconds that a rank is waited for beyond those: it knows better what it cannot reach."""
_ATTEMPT_SECONDS = 5.0
_SHORTEST_SECONDS = 0.1
_PAUSE_SECONDS = 0.2
Look = Callable[[], None]
Streams = tuple[socket.socket | None, ...]


@dataclass(frozen=True, slots=True)
class Links:
    """A rank's ways to the others; streams end with it."""

    rank: int
    ranks: int
    local_ranks: int
    controls: tuple[int, ...]
    """For each rank the file descriptor of a stream that ends with it; -1: there is none."""
    memory: int | None = None
    """File descriptor of memory that all ranks have; None: they have streams."""
    streams: Streams = ()
    """For each rank; None for this one."""
    meeting: tuple[str, int] = ("", 0)
    """Host and port of the leader, for torch's own meeting; port 0: there is none."""
    meeting_socket: int | None = None
    """File descriptor that listens there, on rank 0: torch takes it over."""


def connect_all(rank: int, join: Join, listener: socket.socket, look: Look) -> Streams:
    """A stream to each other rank: opened to those below, taken from those above.

    Args:
        rank: This one.
        join: Where the others are.
        listener: Where those above come to.
        look: Called again and again; may raise.

    Raises:
        GroupError: a rank cannot be reached, or does not come.
    """
    deadline = time.monotonic() + CONNECT_SECONDS
    below = {other: _connect(other, join, rank, deadline, look) for other in range(rank)}
    above = _accept(rank, join, listener, deadline + _LONGER, look)
    return tuple((below | above).get(other) for other in range(len(join.peers)))


def _connect(other: int, join: Join, rank: int, deadline: float, look: Look) -> socket.socket:
    """A stream to a rank below. It listens already; yet the way to a pod that has just begun may be open later."""
    host, port = join.peers[other]
    while True:
        look()
        left = deadline - time.monotonic()
        try:
            return _opened((host, port), max(_SHORTEST_SECONDS, min(left, _ATTEMPT_SECONDS)), Link(join.token, rank))
        except (OSError, WireError) as error:
            if left <= 0:
                raise GroupError(f"cannot reach rank {other} at {Address(host, port)}: {error}") from error
        time.sleep(_PAUSE_SECONDS)


def _opened(address: tuple[str, int], seconds: float, link: Link) -> socket.socket:
    stream = socket.create_connection(address, seconds)
    try:
        Wire(stream).send(encode(link))
    except WireError:
        stream.close()
        raise
    return stream


def _accept(rank: int, join: Join, listener: socket.socket, deadline: float, look: Look) -> dict[int, socket.socket]:
    """The streams of the ranks above; whoever else comes is sent away."""
    door = Door(listener)
    streams: dict[int, socket.socket] = {}
    try:
        while missing := [other for other in range(rank + 1, len(join.peers)) if other not in streams]:
            look()
            if time.monotonic() > deadline:
                raise GroupError(f"rank {missing[0]} opened no stream to rank {rank} in time")
            for wire, frame in door.turn():
                if (other := _who(frame, join)) in missing and other not in streams:
                    streams[other] = _detached(other, wire)
                else:
                    wire.close()
    finally:
        door.close()
    return streams


def _detached(other: int, wire: Wire) -> socket.socket:
    try:
        return wire.detach()
    except WireError as error:
        wire.close()
        raise GroupError(f"rank {other} began before its stream was taken: {error}") from error


def _who(frame: bytes, join: Join) -> int:
    """The rank that opened a stream; -1: none of this group."""
    try:
        link = decode_link(frame)
    except msgspec.DecodeError:
        return -1
    return link.rank if link.token == join.token else -1
