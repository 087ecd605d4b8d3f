"""Rank 0's side of a group: it tells the others what to compute, and notices when one is lost."""

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from moorage_runtime.group import meeting, messages
from moorage_runtime.group.links import Links, connect_all
from moorage_runtime.group.messages import FromFollower, FromLeader, Hello, Ping, Pong, Problem, Stop, encode
from moorage_runtime.group.place import LOOPBACK, Address, Place
from moorage_runtime.group.wire import Wire, WireError, listen, readable
from moorage_runtime.model.errors import GroupError

LOAD_SECONDS = 1800.0
ANSWER_SECONDS = 30.0
_PING_SECONDS = 5.0
_LONGEST_LOOK = 2.0
"""Seconds between two looks that count as waiting: for longer this process was itself stopped."""
_LAST_WORDS_SECONDS = 1.0
_Answer = TypeVar("_Answer", bound=FromFollower)


class Leader:
    """The streams to all followers, and the processes of those in this pod."""

    def __init__(self, place: Place) -> None:
        """Listen; nobody has come yet.

        Raises:
            GroupError: the port is taken.
        """
        self.place = place
        try:
            self._listener = listen(LOOPBACK if place.in_one_pod else None, place.leader.port)
        except OSError as error:
            raise GroupError(f"the group's port {place.leader.port} cannot be listened on: {error}") from error
        self.address = Address(place.leader.host, self._listener.getsockname()[1])
        """Where ranks in this pod find it. In a group of several pods it is the public one: from where they come is
        where the others will look for them."""
        self.memory = os.memfd_create("moorage-group") if place.in_one_pod else -1
        """For ranks in this pod to inherit."""
        self._siblings: Sequence[subprocess.Popen[bytes]] = ()
        self._wires: dict[int, Wire] = {}
        self._silence: dict[int, float] = {}
        self._looked = self._pinged = time.monotonic()

    def started(self, siblings: Sequence[subprocess.Popen[bytes]]) -> None:
        """The processes of ranks 1, 2, … in this pod."""
        self._siblings = siblings

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
        self._silence = dict.fromkeys(self._wires, 0.0)
        door = listen(LOOPBACK if self.place.in_one_pod else None, 0) if torch else None
        join = meeting.introduce(joined, self.address, door.getsockname()[1] if door else 0)
        streams = () if self.place.in_one_pod or torch else connect_all(0, join, self._listener)
        self._listener.close()  # who comes now is told so by the machine, instead of waiting for nobody
        return Links(
            rank=0,
            ranks=own.ranks,
            local_ranks=self.place.local_ranks,
            controls=(-1, *(wire.fileno() for wire in self._wires.values())),
            memory=self.memory,
            streams=streams,
            meeting=(self.place.leader.host, join.port),
            meeting_socket=door.detach() if door else None,
        )

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
                raise self.broken(f"rank {rank} is gone ({error})") from error

    def hear(self, kind: type[_Answer], seconds: float = ANSWER_SECONDS) -> list[_Answer]:
        """The next message of each follower, which must be of that kind, in the order of the ranks.

        Raises:
            GroupError: one is gone, says that it cannot go on, or says nothing in time.
        """
        deadline = time.monotonic() + seconds
        answers: dict[int, _Answer] = {}
        while silent := [rank for rank in self._wires if rank not in answers]:
            for rank in silent:
                answer = self._poll(rank)
                if isinstance(answer, kind):
                    answers[rank] = answer
                elif answer is not None and not isinstance(answer, Pong):
                    raise GroupError(f"rank {rank} said {type(answer).__name__} instead of {kind.__name__}")
            if time.monotonic() > deadline:
                raise GroupError(f"rank {silent[0]} said nothing for {seconds:.0f} s")
            if missing := [self._wires[rank] for rank in silent if rank not in answers]:
                readable(missing, 1.0)
        return [answers[rank] for rank in self._wires]

    def tend(self) -> None:
        """To be called every second or so while there is nothing to compute: notices who is gone or stuck.

        Raises:
            GroupError: someone is.
        """
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, _LONGEST_LOOK), now
        for fd in readable(list(self._wires.values()), 0.0):
            rank = next(rank for rank, wire in self._wires.items() if wire.fileno() == fd)
            while self._poll(rank) is not None:
                self._silence[rank] = 0.0
        for rank in self._silence:
            self._silence[rank] += passed
            if self._silence[rank] > ANSWER_SECONDS:
                raise GroupError(f"rank {rank} has not answered for {ANSWER_SECONDS:.0f} s")
        if now - self._pinged >= _PING_SECONDS:
            self._pinged = now
            self.tell(Ping())

    def broken(self, what: str) -> GroupError:
        """The error for a group in which an exchange failed: the words of the rank that ended, where it left any."""
        deadline = time.monotonic() + _LAST_WORDS_SECONDS
        pending = dict(self._wires)
        while pending and (left := deadline - time.monotonic()) > 0:
            ready = readable(list(pending.values()), left)
            for rank, wire in list(pending.items()):
                if wire.fileno() not in ready:
                    continue
                try:
                    self._poll(rank)
                except GroupError as said:
                    if said.args[0] != _gone(rank):
                        return said
                    del pending[rank]
        return GroupError(what)

    def _poll(self, rank: int) -> FromFollower | None:
        try:
            frame = self._wires[rank].poll()
            answer = None if frame is None else messages.decode_follower(frame)
        except WireError:
            raise GroupError(_gone(rank)) from None
        except msgspec.DecodeError as error:
            raise GroupError(f"rank {rank} sent what is none of its messages: {error}") from error
        if isinstance(answer, Problem):
            raise GroupError(f"rank {rank}: {answer.message}", answer.reason)
        return answer

    def _check_siblings(self) -> None:
        for rank, sibling in enumerate(self._siblings, 1):
            if (code := sibling.poll()) is not None and rank not in self._wires:
                raise GroupError(f"rank {rank} ended with exit code {code} before it joined")

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Tell the followers that it is over, and why."""
        reason = "" if error is None else str(error) or type(error).__name__
        for wire in self._wires.values():
            try:
                wire.send(encode(Stop(reason)))
            except WireError:
                continue  # it is over already
            finally:
                wire.close()
        self._listener.close()
        for sibling in self._siblings:
            _end(sibling)
        if self.memory >= 0:
            os.close(self.memory)


def _gone(rank: int) -> str:
    return f"rank {rank} is gone"


def _end(sibling: "subprocess.Popen[bytes]") -> None:
    """It has been told; what is stuck is killed."""
    try:
        sibling.wait(_LAST_WORDS_SECONDS)
    except subprocess.TimeoutExpired:
        sibling.kill()
        sibling.wait()
