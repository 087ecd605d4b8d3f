"""What exchanges of numbers go through: memory that ranks of one machine share, or a stream between each two ranks."""

import contextlib
import socket
import time
from dataclasses import dataclass

import msgspec

from moorage_runtime.group.messages import Join, Link, decode_link, encode
from moorage_runtime.group.wire import Wire, WireError, readable, tune
from moorage_runtime.model.errors import GroupError

CONNECT_SECONDS = 60.0
_STRANGER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Links:
    """A rank's ways to the others; streams end with it."""

    rank: int
    ranks: int
    local_ranks: int
    controls: tuple[int, ...]
    """For each rank the file descriptor of a stream that ends with it; -1: there is none."""
    memory: int = -1
    """File descriptor of memory that all ranks have; -1: they have streams."""
    streams: tuple[socket.socket | None, ...] = ()
    """For each rank; None for this one."""
    meeting: tuple[str, int] = ("", 0)
    """Host and port of the leader, for torch's own meeting; port 0: there is none."""
    meeting_socket: int | None = None
    """File descriptor that listens there, on rank 0: torch takes it over."""


def connect_all(rank: int, join: Join, listener: socket.socket) -> tuple[socket.socket | None, ...]:
    """A stream to each other rank: opened to those below, taken from those above.

    Raises:
        GroupError: a rank cannot be reached, or does not come.
    """
    deadline = time.monotonic() + CONNECT_SECONDS
    streams: dict[int, socket.socket] = {}
    for other in range(rank):
        streams[other] = _connect(other, join, rank)
    while missing := [other for other in range(rank + 1, len(join.peers)) if other not in streams]:
        if time.monotonic() > deadline:
            raise GroupError(f"rank {missing[0]} opened no stream to rank {rank} within {CONNECT_SECONDS:.0f} s")
        if readable([listener], 1.0):
            _accept(listener, join, missing, streams)
    return tuple(streams.get(other) for other in range(len(join.peers)))


def _connect(other: int, join: Join, rank: int) -> socket.socket:
    host, port = join.peers[other]
    try:
        stream = socket.create_connection((host, port), CONNECT_SECONDS)
        Wire(stream).send(encode(Link(join.token, rank)))
    except (OSError, WireError) as error:
        raise GroupError(f"rank {rank} cannot reach rank {other} at {host}:{port}: {error}") from error
    return stream


def _accept(listener: socket.socket, join: Join, missing: list[int], streams: dict[int, socket.socket]) -> None:
    """Take one stream; whoever else comes is sent away."""
    stream = listener.accept()[0]
    tune(stream)
    with contextlib.suppress(WireError, msgspec.DecodeError):
        frame = Wire(stream).receive(_STRANGER_SECONDS)
        link = None if frame is None else decode_link(frame)
        if link is not None and link.token == join.token and link.rank in missing:
            streams[link.rank] = stream
            return
    stream.close()
