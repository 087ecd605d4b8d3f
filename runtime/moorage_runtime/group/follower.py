"""A follower's side of a group: it comes to the leader, then does what it is told until the leader ends."""

import socket
import time
from collections.abc import Callable

import msgspec

from moorage_runtime.group.links import Links, connect_all
from moorage_runtime.group.meeting import JOIN_SECONDS
from moorage_runtime.group.messages import (
    FromFollower,
    FromLeader,
    Hello,
    Join,
    Ping,
    Pong,
    Problem,
    Refused,
    Stop,
    decode_leader,
    encode,
)
from moorage_runtime.group.place import Address
from moorage_runtime.group.wire import MOST, Wire, WireError, listen, readable
from moorage_runtime.model.errors import GroupError, StartError

SILENCE_SECONDS = 30.0
"""A leader that computes nothing says so every few seconds."""
_RETRY_SECONDS = 0.5
_LOOK_SECONDS = 1.0
_LONGEST_LOOK = 2.0


class RefusedError(GroupError):
    """The leader does not take this rank; to ask again changes nothing."""


class Follower:
    """The stream to the leader."""

    def __init__(self, wire: Wire, links: Links) -> None:
        self._wire = wire
        self.links = links

    @classmethod
    def join(
        cls,
        leader: Address,
        hello: Hello,
        *,
        local_ranks: int = 1,
        memory: int | None = None,
        look: Callable[[], None] = lambda: None,
        seconds: float = JOIN_SECONDS,
    ) -> "Follower":
        """Come to the leader, and wait with it for the others.

        Args:
            leader: Where it listens, or will.
            hello: Who this is.
            local_ranks: Ranks that share this one's pod.
            memory: File descriptor of the memory that all ranks share; None: they open streams.
            look: Called again and again while waiting; may raise.
            seconds: How long to wait for the leader.

        Raises:
            GroupError: it does not come, or does not take this rank.
        """
        with listen(None, 0) as listener:
            hello = msgspec.structs.replace(hello, port=listener.getsockname()[1])
            wire, join = _meet(leader, hello, look, seconds)
            join = msgspec.structs.replace(join, peers=[(leader.host, join.peers[0][1]), *join.peers[1:]])
            streams = () if memory is not None or join.port else connect_all(hello.rank, join, listener)
        links = Links(
            rank=hello.rank,
            ranks=hello.ranks,
            local_ranks=local_ranks,
            controls=(wire.fileno(), *[-1] * (hello.ranks - 1)),
            memory=-1 if memory is None else memory,
            streams=streams,
            meeting=(leader.host, join.port),
        )
        return cls(wire, links)

    def fileno(self) -> int:
        """For `poll`."""
        return self._wire.fileno()

    def send(self, message: FromFollower) -> None:
        """Answer.

        Raises:
            GroupError: the leader is gone.
        """
        try:
            self._wire.send(encode(message))
        except WireError as error:
            raise GroupError(f"rank 0 is gone ({error})") from error

    def next(self, look: Callable[[], None], *, expects: bool) -> FromLeader:
        """What to do next; pings are answered here.

        Args:
            look: Called every second while waiting; may raise.
            expects: Whether a leader that says nothing for `SILENCE_SECONDS` is lost.

        Raises:
            GroupError: the leader is gone.
        """
        silence, looked = 0.0, time.monotonic()
        while True:
            message = self._poll()
            if isinstance(message, Ping):
                self.send(Pong())
                silence = 0.0
            elif message is not None:
                return message
            else:
                readable([self._wire], _LOOK_SECONDS)
                look()
            now = time.monotonic()
            silence, looked = silence + min(now - looked, _LONGEST_LOOK), now
            if expects and silence > SILENCE_SECONDS:
                raise GroupError(f"rank 0 has said nothing for {SILENCE_SECONDS:.0f} s")

    def last_words(self, seconds: float) -> Stop | None:
        """What the leader said when it ended the group, if it has."""
        try:
            frame = self._wire.receive(seconds)
            message = None if frame is None else decode_leader(frame)
        except (WireError, msgspec.DecodeError):
            return None
        return message if isinstance(message, Stop) else None

    def say_why(self, error: StartError) -> None:
        """Tell the leader why this rank ends; a leader that is gone need not know."""
        try:
            self._wire.send(encode(Problem(error.reason, str(error))))
        except WireError:
            return

    def close(self) -> None:
        """End the stream."""
        self._wire.close()

    def _poll(self) -> FromLeader | None:
        try:
            frame = self._wire.poll()
            return None if frame is None else decode_leader(frame)
        except WireError as error:
            raise GroupError(f"rank 0 is gone ({error})") from error
        except msgspec.DecodeError as error:
            raise GroupError(f"rank 0 sent what is none of its messages: {error}") from error


def _meet(leader: Address, hello: Hello, look: Callable[[], None], seconds: float) -> tuple[Wire, Join]:
    """Ask until the leader answers: it may start later, or again."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return _ask(leader, hello, look)
        except (OSError, WireError, msgspec.DecodeError) as error:
            if time.monotonic() > deadline:
                raise GroupError(f"rank 0 was not met at {leader} within {seconds:.0f} s: {error}") from error
        look()
        time.sleep(_RETRY_SECONDS)


def _ask(leader: Address, hello: Hello, look: Callable[[], None]) -> tuple[Wire, Join]:
    wire = Wire(socket.create_connection((leader.host, leader.port), SILENCE_SECONDS))
    try:
        wire.most = MOST
        wire.send(encode(hello))
        return wire, _answer(wire, hello.rank, look)
    except BaseException:
        wire.close()
        raise


def _answer(wire: Wire, rank: int, look: Callable[[], None]) -> Join:
    while (frame := wire.receive(_LOOK_SECONDS)) is None:
        look()
    answer = decode_leader(frame)
    if isinstance(answer, Refused):
        raise RefusedError(f"rank 0 does not take rank {rank}: {answer.reason}")
    if isinstance(answer, Stop):
        raise GroupError(f"rank 0 has ended: {answer.reason}")
    if not isinstance(answer, Join):
        raise WireError(f"rank 0 said {type(answer).__name__} instead of Join")
    return answer
