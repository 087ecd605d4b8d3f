"""A follower's side of a group: it comes to the leader, then does what it is told until the leader ends."""

import contextlib
import socket
import time
from types import TracebackType
from typing import Self

import msgspec

from moorage_runtime.engine.errors import StartError
from moorage_runtime.group.errors import GroupError
from moorage_runtime.group.links import Links, Look, Streams, connect_all
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

SILENCE_SECONDS = 30.0
"""A leader that computes nothing says so every few seconds."""
_ATTEMPT_SECONDS = 5.0
_RETRY_SECONDS = 0.5
_LOOK_SECONDS = 1.0
_LONGEST_LOOK = 2.0


class RefusedError(GroupError):
    """The leader does not take this rank; to ask again changes nothing."""


class Follower:
    """The stream to the leader, who is told of an exception that leaves the `with`."""

    def __init__(self, wire: Wire, hello: Hello, join: Join, listener: socket.socket | None = None) -> None:
        self._wire = wire
        self._hello = hello
        self._join = join
        self._listener = listener

    @classmethod
    def join(
        cls, leader: Address, hello: Hello, *, streams: bool, look: Look = lambda: None, seconds: float = JOIN_SECONDS
    ) -> "Follower":
        """Come to the leader, and wait with it for the others.

        Args:
            leader: Where it listens, or will.
            hello: Who this is.
            streams: Whether the others will open streams to this one, or it to them.
            look: Called again and again while waiting; may raise.
            seconds: How long to wait for the leader, and then with it for the others.

        Raises:
            GroupError: it does not come, or does not take this rank.
        """
        with contextlib.ExitStack() as opened:
            listener = opened.enter_context(listen(None, 0)) if streams else None
            if listener is not None:
                hello = msgspec.structs.replace(hello, port=listener.getsockname()[1])
            wire, join = _meet(leader, hello, look, seconds)
            opened.pop_all()
        return cls(wire, hello, join, listener)

    def links(self, look: Look, *, local_ranks: int = 1, memory: int | None = None) -> Links:
        """What exchanges go through.

        Args:
            look: Called again and again while the others are connected to; may raise.
            local_ranks: Ranks that share this one's pod.
            memory: File descriptor of the memory that all ranks share.

        Raises:
            GroupError: one cannot be reached, or is gone.
        """

        def look_at_all() -> None:
            look()
            self.look()

        rank = self._hello.rank
        streams: Streams = ()
        if self._listener is not None:
            streams = connect_all(rank, self._join, self._listener, look_at_all)
            self._listener.close()
        return Links(
            rank=rank,
            ranks=self._hello.ranks,
            local_ranks=local_ranks,
            controls=(self._wire.fileno(), *[-1] * (self._hello.ranks - 1)),
            memory=memory,
            streams=streams,
            meeting=(self._join.peers[0][0], self._join.port),
        )

    def look(self) -> None:
        """Notice the leader's end while it has nothing to say: until all ranks have loaded.

        Raises:
            GroupError: it has ended.
        """
        message = self._poll()
        if message is not None:
            raise GroupError(f"rank 0 has ended: {message.reason}" if isinstance(message, Stop) else _odd(message))

    def send(self, message: FromFollower) -> None:
        """Say something.

        Raises:
            GroupError: the leader is gone.
        """
        try:
            self._wire.send(encode(message))
        except WireError as error:
            raise GroupError(f"rank 0 is gone ({error})") from error

    def next(self, look: Look, *, expects: bool) -> FromLeader:
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
        deadline = time.monotonic() + seconds
        with contextlib.suppress(WireError, msgspec.DecodeError):
            while (frame := self._wire.receive(deadline - time.monotonic())) is not None:
                if isinstance(message := decode_leader(frame), Stop):
                    return message
        return None

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Tell the leader why this rank ends; a leader that is gone need not know."""
        with contextlib.suppress(WireError):
            if isinstance(error, StartError):
                self._wire.send(encode(Problem(error.reason, str(error))))
            elif isinstance(error, Exception):
                self._wire.send(encode(Problem("EngineFailed", f"{type(error).__name__}: {error}")))
        self._wire.close()
        if self._listener is not None:
            self._listener.close()

    def _poll(self) -> FromLeader | None:
        try:
            frame = self._wire.poll()
            return None if frame is None else decode_leader(frame)
        except WireError as error:
            raise GroupError(f"rank 0 is gone ({error})") from error
        except msgspec.DecodeError as error:
            raise GroupError(f"rank 0 sent what is none of its messages: {error}") from error


def _meet(leader: Address, hello: Hello, look: Look, seconds: float) -> tuple[Wire, Join]:
    """Ask until the leader answers: it may start later, or again."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return _ask(leader, hello, look, seconds)
        except (OSError, WireError, msgspec.DecodeError) as error:
            if time.monotonic() > deadline:
                raise GroupError(f"rank 0 was not met at {leader} within {seconds:.0f} s: {error}") from error
        look()
        time.sleep(_RETRY_SECONDS)


def _ask(leader: Address, hello: Hello, look: Look, seconds: float) -> tuple[Wire, Join]:
    wire = Wire(socket.create_connection((leader.host, leader.port), _ATTEMPT_SECONDS))
    try:
        wire.most = MOST
        wire.send(encode(hello))
        # A leader that waits for the others gives up after as long, and says so: this one waits longer.
        join = _answer(wire, hello.rank, look, time.monotonic() + seconds + SILENCE_SECONDS)
        # It knows where the others are, and they where it is itself.
        return wire, msgspec.structs.replace(join, peers=[(wire.host, join.peers[0][1]), *join.peers[1:]])
    except BaseException:
        wire.close()
        raise


def _answer(wire: Wire, rank: int, look: Look, deadline: float) -> Join:
    while (frame := wire.receive(_LOOK_SECONDS)) is None:
        look()
        if time.monotonic() > deadline:
            raise GroupError(f"rank 0 has taken rank {rank} and then said nothing more")
    answer = decode_leader(frame)
    if isinstance(answer, Refused) and answer.again:
        raise WireError(f"it does not take rank {rank} yet: {answer.reason}")
    if isinstance(answer, Refused):
        raise RefusedError(f"rank 0 does not take rank {rank}: {answer.reason}")
    if isinstance(answer, Stop):
        raise GroupError(f"rank 0 has ended: {answer.reason}")
    if not isinstance(answer, Join):
        raise WireError(_odd(answer))
    return answer


def _odd(message: FromLeader) -> str:
    return f"rank 0 said {type(message).__name__} where it has no place"
