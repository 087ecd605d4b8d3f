"""How the ranks of a group find each other: followers come to the leader's port, and are taken or told why not."""

import contextlib
import secrets
import socket
import time
from collections.abc import Callable, Iterator

import msgspec

from moorage_runtime.group.door import Door
from moorage_runtime.group.errors import GroupError, LostError
from moorage_runtime.group.messages import Hello, Join, Refused, decode_hello, encode
from moorage_runtime.group.place import Address
from moorage_runtime.group.wire import MOST, Wire, WireError, readable

JOIN_SECONDS = 600.0
"""How long ranks wait for each other at the start: pods are scheduled, images pulled, models fetched."""
_TOKEN_BYTES = 16

Joined = dict[int, tuple[Wire, Hello]]


class Meeting:
    """The leader's door until the group is complete."""

    def __init__(self, listener: socket.socket, own: Hello) -> None:
        """`own`: what the leader would say of itself."""
        self._door = Door(listener)
        self._own = own
        self._joined: Joined = {}

    def gather(self, look: Callable[[list[int]], None], seconds: float = JOIN_SECONDS) -> Joined:
        """Wait for everyone; `look` is called again and again with the ranks that are missing, and may raise.

        Raises:
            GroupError: someone did not come.
        """
        deadline = time.monotonic() + seconds
        with contextlib.ExitStack() as unless_all_come, contextlib.closing(self._door):
            unless_all_come.callback(self._close_joined)
            while missing := self._missing():
                look(missing)
                if time.monotonic() > deadline:
                    raise GroupError(f"{named(missing)} did not come within {seconds:.0f} s")
                self._turn()
            unless_all_come.pop_all()
        return self._joined

    def _close_joined(self) -> None:
        for wire, _ in self._joined.values():
            wire.close()

    def _missing(self) -> list[int]:
        return [rank for rank in range(1, self._own.ranks) if rank not in self._joined]

    def _turn(self) -> None:
        said = self._door.turn([wire for wire, _ in self._joined.values()])
        for rank, (wire, _) in tuple(self._joined.items()):
            if readable([wire], 0.0):  # it has nothing to say now: it is gone, and will come again
                del self._joined[rank]
                wire.close()
        for wire, frame in said:
            self._hear(wire, frame)

    def _hear(self, wire: Wire, frame: bytes) -> None:
        try:
            hello = decode_hello(frame)
        except msgspec.DecodeError:
            wire.close()
            return
        if refused := refusal_of(hello, self._own, self._joined):
            with contextlib.suppress(WireError):  # it need not hear it
                wire.send(encode(refused))
            wire.close()
            return
        wire.most = MOST
        self._joined[hello.rank] = (wire, hello)


def refusal_of(hello: Hello, own: Hello, taken: Joined) -> Refused | None:
    """Why the leader does not take a follower; None: it does."""
    wrong = {
        f"it speaks version {hello.protocol} of the protocol, and the leader {own.protocol}": (
            hello.protocol != own.protocol
        ),
        f"it is of a group of {hello.ranks} ranks, and the leader of {own.ranks}": hello.ranks != own.ranks,
        f"rank {hello.rank} is none that this group waits for": hello.rank not in range(1, own.ranks),
        "it has another model than the leader": not hello.model.may_be(own.model),
        f"it computes with {_how(hello)}, and the leader with {_how(own)}": hello.computing != own.computing,
    }
    for reason, is_so in wrong.items():
        if is_so:
            return Refused(reason)
    if hello.rank in taken:  # perhaps one of its last life, of which the machine does not know yet that it is gone
        return Refused(f"there is a rank {hello.rank} already", again=True)
    return None


def _how(hello: Hello) -> str:
    return f"{hello.computing} ({hello.because})" if hello.because else hello.computing


def introduce(joined: Joined, own: Address, meeting_port: int) -> Join:
    """Tell every follower where all the others are; the same for the leader's own use.

    Raises:
        LostError: one is gone.
    """
    peers = [(own.host, own.port)]
    for rank, (wire, hello) in sorted(joined.items()):
        with _told_of(rank):
            peers.append((wire.host, hello.port))
    join = Join(secrets.token_bytes(_TOKEN_BYTES), peers, meeting_port)
    for rank, (wire, _) in sorted(joined.items()):
        with _told_of(rank):
            wire.send(encode(join))
    return join


@contextlib.contextmanager
def _told_of(rank: int) -> Iterator[None]:
    try:
        yield
    except WireError as error:
        raise LostError(rank) from error


def named(ranks: list[int]) -> str:
    """`rank 1`, `ranks 1 and 2`."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    return f"ranks {', '.join(map(str, ranks[:-1]))} and {ranks[-1]}"
