"""Rank 0's side of a group: it tells the others what to compute, and notices when one is lost."""

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from moorage_runtime.group import meeting
from moorage_runtime.group.errors import GroupError, LostError, gone
from moorage_runtime.group.links import Links, connect_all
from moorage_runtime.group.messages import (
    FromFollower,
    FromLeader,
    Hello,
    Leaving,
    Ping,
    Pong,
    Problem,
    Stop,
    decode_follower,
    encode,
)
from moorage_runtime.group.place import LOOPBACK, Address, Place
from moorage_runtime.group.siblings import Siblings
from moorage_runtime.group.wire import Wire, WireError, listen, readable

LOAD_SECONDS = 1800.0
ANSWER_SECONDS = 30.0
_PING_SECONDS = 5.0
_LONGEST_LOOK = 2.0
"""Seconds between two looks that count as waiting: for longer this process was itself stopped."""
_LAST_WORDS_SECONDS = 1.0
_Answer = TypeVar("_Answer", bound=FromFollower)


class Leader:
    """The streams to all followers. Whatever ends the `with` is told to them."""

    def __init__(self, place: Place, siblings: Siblings) -> None:
        """Listen; nobody has come yet.

        Args:
            place: This pod's.
            siblings: The processes of its other ranks, which are started once this listens.

        Raises:
            GroupError: the port is taken.
        """
        self.place = place
        try:
            self._listener = listen(self._interface, place.leader.port)
        except OSError as error:
            raise GroupError(f"the group's port {place.leader.port} cannot be listened on: {error}") from error
        self.address = Address(place.leader.host, self._listener.getsockname()[1])
        """Where ranks in this pod find it. In a group of several pods it is the public one: from where they come is
        where the others will look for them."""
        self.memory = os.memfd_create("moorage-group") if place.in_one_pod else None
        """For ranks in this pod to inherit."""
        self._siblings = siblings
        self._wires: dict[int, Wire] = {}
        self._ended: dict[int, GroupError] = {}
        self._said: dict[int, deque[FromFollower]] = {}
        self._silence: dict[int, float] = {}
        self._leaving: list[int] = []
        self._looked = self._pinged = time.monotonic()

    def gather(
        self, own: Hello, waiting: Callable[[str], None], seconds: float = meeting.JOIN_SECONDS, *, torch: bool = False
    ) -> Links:
        """Wait until everyone is here, and open what exchanges go through.

        Args:
            own: What this rank would say of itself.
            waiting: Told who is missing.
            torch: Whether exchanges are torch's business, which needs only a port to meet at.
            seconds: How long.

        Raises:
            GroupError: someone did not come.
        """

        def look(missing: list[int]) -> None:
            self._check_siblings()
            waiting(f"waiting for {meeting.named(missing)}")

        joined = meeting.Meeting(self._listener, own).gather(look, seconds)
        self._wires = {rank: wire for rank, (wire, _) in sorted(joined.items())}
        self._said = {rank: deque() for rank in self._wires}
        self._silence = dict.fromkeys(self._wires, 0.0)
        torchs = listen(self._interface, 0) if torch else None
        join = meeting.introduce(joined, self.address, torchs.getsockname()[1] if torchs else 0)
        streams = () if self.place.in_one_pod or torch else connect_all(0, join, self._listener, self.look)
        self._listener.close()  # who comes now is told so by the machine, instead of waiting for nobody
        return Links(
            rank=0,
            ranks=own.ranks,
            local_ranks=self.place.local_ranks,
            controls=(-1, *self.filenos()),
            memory=self.memory,
            streams=streams,
            meeting=(self.place.leader.host, join.port),
            meeting_socket=torchs.detach() if torchs else None,
        )

    def filenos(self) -> list[int]:
        """Of the streams to all followers, in their order: what is to be read there wants `tend`."""
        return [wire.fileno() for wire in self._wires.values()]

    def tell(self, message: FromLeader) -> None:
        """Say something to all followers.

        Raises:
            GroupError: one is gone.
        """
        frame = encode(message)
        for rank, wire in self._wires.items():
            try:
                wire.send(frame)
            except WireError as error:
                raise self.broken(gone(rank)) from error

    def hear(self, kind: type[_Answer], seconds: float = ANSWER_SECONDS) -> list[_Answer]:
        """The next message of each follower, which must be of that kind, in the order of the ranks.

        Raises:
            GroupError: one is gone, says that it cannot go on, or says nothing in time.
        """
        deadline = time.monotonic() + seconds
        self.look()
        while silent := [rank for rank, said in self._said.items() if not said]:
            if time.monotonic() > deadline:
                raise GroupError(f"rank {silent[0]} said nothing for {seconds:.0f} s")
            readable(list(self._wires.values()), 1.0)  # of all: one that has answered may be lost meanwhile
            self.look()
        return [self._answer(rank, kind) for rank in self._said]

    def look(self) -> None:
        """Take what the followers have said.

        Raises:
            GroupError: one has ended.
        """
        for rank in self._wires:
            self._read(rank)
        for error in self._ended.values():
            raise self._cause() or error

    def tend(self) -> list[int]:
        """Notice who is gone or stuck; to be called between steps, and every second or so while there are none.

        Returns:
            Ranks whose pods have been told to end since the last time.

        Raises:
            GroupError: someone is lost.
        """
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, _LONGEST_LOOK), now
        self.look()
        for rank in self._silence:
            self._silence[rank] += passed
            if self._silence[rank] > ANSWER_SECONDS:
                raise GroupError(f"rank {rank} has not answered for {ANSWER_SECONDS:.0f} s")
        if now - self._pinged >= _PING_SECONDS:
            self._pinged = now
            self.tell(Ping())
        leaving, self._leaving = self._leaving, []
        return leaving

    def broken(self, what: str, *, vague: bool = False) -> GroupError:
        """The error for a group in which an exchange failed.

        A rank whose process ended without a word is what broke it; of those that left their reason some had only
        noticed. All of them are given a moment to be heard of.

        Args:
            what: How it failed here.
            vague: Whether that does not say whose fault it was.
        """
        deadline = time.monotonic() + _LAST_WORDS_SECONDS
        while True:
            for rank in self._wires:
                self._read(rank)
            if (cause := self._cause(what)) is not None:
                return cause
            silent = [wire for rank, wire in self._wires.items() if rank not in self._ended]
            left = deadline - time.monotonic()
            if not silent or left <= 0:
                break
            readable(silent, left)
        said = list(self._ended.values()) if vague else []
        return said[0] if said else GroupError(what)

    def _cause(self, what: str = "") -> GroupError | None:
        """The error that is the reason for all others, as far as that is certain."""
        certain = [
            *(error for error in self._ended.values() if error.reason != "EngineFailed"),
            *(error for error in self._ended.values() if isinstance(error, LostError)),
            *(error for rank, error in self._ended.items() if what == gone(rank)),
        ]
        return certain[0] if certain else None

    @property
    def _interface(self) -> str | None:
        return LOOPBACK if self.place.in_one_pod else None

    def _read(self, rank: int) -> None:
        """Take what one has said; why it ended stays known."""
        if rank in self._ended:
            return
        try:
            while (frame := self._wires[rank].poll()) is not None:
                self._silence[rank] = 0.0
                self._take(rank, decode_follower(frame))
        except WireError:
            self._ended.setdefault(rank, LostError(rank))
        except msgspec.DecodeError as error:
            self._ended[rank] = GroupError(f"rank {rank} sent what is none of its messages: {error}")

    def _take(self, rank: int, message: FromFollower) -> None:
        match message:
            case Problem(reason=reason, message=words):
                self._ended[rank] = GroupError(f"rank {rank}: {words}", reason)
            case Leaving():
                self._leaving.append(rank)
            case Pong():
                pass
            case _:
                self._said[rank].append(message)

    def _answer(self, rank: int, kind: type[_Answer]) -> _Answer:
        answer = self._said[rank].popleft()
        if not isinstance(answer, kind):
            raise GroupError(f"rank {rank} said {type(answer).__name__} instead of {kind.__name__}")
        return answer

    def _check_siblings(self) -> None:
        for rank, code in self._siblings.ended().items():
            raise GroupError(f"rank {rank} ended with exit code {code} before all were here")

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Tell the followers that it is over, and why."""
        reason = "" if error is None else str(error) or type(error).__name__
        for wire in self._wires.values():
            with contextlib.suppress(WireError):  # it is over already
                wire.send(encode(Stop(reason)), _LAST_WORDS_SECONDS)
        for wire in self._wires.values():
            wire.close()
        self._listener.close()
        if self.memory is not None:
            os.close(self.memory)
