"""How the ranks of a group find each other: followers come to the leader's port, and are taken or told why not.

Whoever else comes there is sent away, and keeps nobody waiting: a scanner, a rank of another group, one of the last
life of this group.
"""

import secrets
import socket
import time
from collections.abc import Callable

import msgspec

from moorage_runtime.group.messages import Hello, Join, Refused, decode_hello, encode
from moorage_runtime.group.place import Address
from moorage_runtime.group.wire import MOST, Wire, WireError, readable
from moorage_runtime.model.errors import GroupError

JOIN_SECONDS = 600.0
"""How long ranks wait for each other at the start: pods are scheduled, images pulled, models fetched."""
_HELLO_SECONDS = 5.0
_LOOK_SECONDS = 0.2
_TOKEN_BYTES = 16

Joined = dict[int, tuple[Wire, Hello]]


class Meeting:
    """The leader's door until the group is complete."""

    def __init__(self, listener: socket.socket, own: Hello) -> None:
        """`own`: what the leader would say of itself."""
        self._listener = listener
        self._own = own
        self._strangers: dict[int, tuple[Wire, float]] = {}
        self._joined: Joined = {}

    def gather(self, look: Callable[[list[int]], None], seconds: float = JOIN_SECONDS) -> Joined:
        """Wait for everyone; `look` is called again and again with the ranks that are missing, and may raise.

        Raises:
            GroupError: someone did not come.
        """
        deadline = time.monotonic() + seconds
        while missing := self._missing():
            look(missing)
            if time.monotonic() > deadline:
                raise GroupError(f"{named(missing)} did not come within {seconds:.0f} s")
            self._turn()
        for wire, _ in self._strangers.values():
            wire.close()
        return self._joined

    def _missing(self) -> list[int]:
        return [rank for rank in range(1, self._own.ranks) if rank not in self._joined]

    def _turn(self) -> None:
        wires = [wire for wire, _ in [*self._strangers.values(), *self._joined.values()]]
        ready = readable([self._listener, *wires], _LOOK_SECONDS)
        if self._listener.fileno() in ready:
            wire = Wire(self._listener.accept()[0])
            self._strangers[wire.fileno()] = (wire, time.monotonic() + _HELLO_SECONDS)
        for rank, (wire, _) in list(self._joined.items()):
            if wire.fileno() in ready:  # it has nothing to say now: it is gone, and will come again
                del self._joined[rank]
                wire.close()
        for key, (wire, deadline) in list(self._strangers.items()):
            if self._heard(wire) or time.monotonic() > deadline:
                del self._strangers[key]

    def _heard(self, wire: Wire) -> bool:
        """Whether a stranger is none any longer, or was sent away."""
        try:
            frame = wire.poll()
            if frame is None:
                return False
            hello = decode_hello(frame)
            if refusal := refusal_of(hello, self._own, self._joined):
                wire.send(encode(Refused(refusal)))
                wire.close()
                return True
        except (WireError, msgspec.DecodeError):
            wire.close()
            return True
        wire.most = MOST
        self._joined[hello.rank] = (wire, hello)
        return True


def refusal_of(hello: Hello, own: Hello, taken: Joined) -> str:
    """Why the leader does not take a follower; empty: it does."""
    wrong = {
        f"it speaks version {hello.protocol} of the protocol, and the leader {own.protocol}": (
            hello.protocol != own.protocol
        ),
        f"it is of a group of {hello.ranks} ranks, and the leader of {own.ranks}": hello.ranks != own.ranks,
        f"rank {hello.rank} is none that this group waits for": hello.rank not in range(1, own.ranks),
        f"there is a rank {hello.rank} already": hello.rank in taken,
        "it has another model than the leader": hello.model != own.model,
        f"it was asked for {hello.computing}, and the leader for {own.computing}": hello.computing != own.computing,
    }
    return next((reason for reason, is_so in wrong.items() if is_so), "")


def introduce(joined: Joined, own: Address, meeting_port: int) -> Join:
    """Tell every follower where all the others are; the same for the leader's own use."""
    peers = [(own.host, own.port), *((wire.host, hello.port) for _, (wire, hello) in sorted(joined.items()))]
    join = Join(secrets.token_bytes(_TOKEN_BYTES), peers, meeting_port)
    for rank, (wire, _) in sorted(joined.items()):
        try:
            wire.send(encode(join))
        except WireError as error:
            raise GroupError(f"rank {rank} is gone: {error}") from error
    return join


def named(ranks: list[int]) -> str:
    """`rank 1`, `ranks 1 and 2`."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    return f"ranks {', '.join(map(str, ranks[:-1]))} and {ranks[-1]}"
