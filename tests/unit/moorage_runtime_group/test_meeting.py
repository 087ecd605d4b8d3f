"""How ranks find each other over TCP, and who is sent away."""

import socket
import struct
import threading

import msgspec
import pytest

from moorage_runtime.group import meeting
from moorage_runtime.group.errors import GroupError, LostError
from moorage_runtime.group.fingerprint import Fingerprint
from moorage_runtime.group.meeting import Meeting, introduce, refusal_of
from moorage_runtime.group.messages import PROTOCOL, Pong, Refused, encode
from moorage_runtime.group.place import LOOPBACK, Address
from moorage_runtime.group.wire import Wire, WireError, listen


class Room:
    """A leader that waits for its ranks, on a thread."""

    def __init__(self, kit):
        self.kit = kit
        self.listener = listen(LOOPBACK, 0)
        self.address = Address(LOOPBACK, self.listener.getsockname()[1])
        self.joined = None
        self.missing = []
        self._thread = threading.Thread(target=self._wait)
        self._thread.start()

    def _wait(self):
        self.joined = Meeting(self.listener, self.kit.own).gather(self.missing.append, self.kit.deadline)

    def come(self, rank, **changed):
        wire = Wire(socket.create_connection((LOOPBACK, self.address.port)))
        wire.send(encode(self.kit.hello(rank, **changed)))
        return wire

    def until_missing(self, ranks):
        while self.missing[-1:] != [ranks]:
            threading.Event().wait(0.01)

    def close(self):
        self._thread.join(self.kit.deadline)
        assert not self._thread.is_alive()
        self.listener.close()
        for wire, _ in (self.joined or {}).values():
            wire.close()


@pytest.fixture
def room(kit):
    made = Room(kit)
    yield made
    made.close()


@pytest.fixture
def ended(kit):
    def words(wire):
        """What the leader said before it closed the stream."""
        frames = []
        with wire:
            try:
                while (frame := wire.receive(kit.deadline)) is not None:
                    frames.append(msgspec.msgpack.decode(frame))
            except WireError:
                return frames
        pytest.fail("the leader did not close the stream")

    return words


def all_join(room, order=(1, 2)):
    kept = [room.come(rank) for rank in order]
    room.close()
    assert sorted(room.joined) == [1, 2]
    for wire in kept:
        wire.close()


@pytest.mark.parametrize(
    ("rank", "changed", "why"),
    [
        (1, {"protocol": 99}, f"it speaks version 99 of the protocol, and the leader {PROTOCOL}"),
        (1, {"ranks": 2}, "it is of a group of 2 ranks, and the leader of 3"),
        (0, {}, "rank 0 is none that this group waits for"),
        (3, {}, "rank 3 is none that this group waits for"),
        (-1, {}, "rank -1 is none that this group waits for"),
        (1, {"model": Fingerprint("another")}, "it has another model than the leader"),
        (1, {"computing": "float32"}, "it computes with float32, and the leader with bfloat16"),
        (
            1,
            {"computing": "torch-cpu", "because": "libkernels.so cannot be loaded"},
            "it computes with torch-cpu (libkernels.so cannot be loaded), and the leader with bfloat16",
        ),
    ],
)
def test_who_does_not_fit_is_told_why_and_the_others_join(room, ended, rank, changed, why):
    assert ended(room.come(rank, **changed)) == [["refused", why, False]]
    all_join(room)


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        struct.pack("!I", 2**31),
        struct.pack("!I", 5) + b"\xc1\xc1\xc1\xc1\xc1",
        struct.pack("!I", len(encode(Pong()))) + encode(Pong()),
        struct.pack("!I", 3) + b"\x80\x04\x95",  # a pickle's first bytes
    ],
    ids=["http", "huge", "no msgpack", "another message", "pickle"],
)
def test_strangers_are_sent_away_without_a_word(room, kit, said):
    with socket.create_connection((LOOPBACK, room.address.port)) as stranger:
        stranger.sendall(said)
        stranger.settimeout(kit.deadline)
        assert stranger.recv(100) == b""
    all_join(room, (2, 1))


def test_a_stranger_that_says_nothing_keeps_nobody_waiting(room, kit):
    with socket.create_connection((LOOPBACK, room.address.port)) as stranger:
        all_join(room)
        stranger.settimeout(kit.deadline)
        assert stranger.recv(1) == b""


def test_a_rank_that_leaves_and_comes_again_is_taken_and_a_double_may_come_again_later(room, ended):
    first = room.come(1)
    room.until_missing([2])
    assert ended(room.come(1)) == [["refused", "there is a rank 1 already", True]]
    first.close()
    room.until_missing([1, 2])
    all_join(room)


@pytest.mark.parametrize(
    ("own", "theirs", "fits"),
    [
        (Fingerprint("m", "sha256:1"), Fingerprint("m", "sha256:1"), True),
        (Fingerprint("m", "sha256:1"), Fingerprint("m"), True),
        (Fingerprint("m"), Fingerprint("m", "sha256:1"), True),
        (Fingerprint("m", "sha256:1"), Fingerprint("m", "sha256:2"), False),
        (Fingerprint("m", "sha256:1"), Fingerprint("n", "sha256:1"), False),
    ],
)
def test_a_digest_counts_where_both_know_it(kit, own, theirs, fits):
    refused = refusal_of(kit.hello(1, model=theirs), kit.hello(0, model=own), {})
    assert refused == (None if fits else Refused("it has another model than the leader"))


def test_ranks_that_do_not_come_are_named(kit):
    with listen(LOOPBACK, 0) as listener, pytest.raises(GroupError, match="ranks 1 and 2 did not come within 0 s"):
        Meeting(listener, kit.own).gather(lambda _missing: None, 0.0)


def test_a_meeting_that_fails_leaves_no_stream_open(kit):
    with listen(LOOPBACK, 0) as listener:
        waiting = Meeting(listener, kit.own)
        rank = Wire(socket.create_connection(listener.getsockname()[:2]))
        rank.send(encode(kit.hello(1)))

        def look(missing):
            if missing == [2]:
                raise GroupError("enough")

        with pytest.raises(GroupError, match="enough"):
            waiting.gather(look, kit.deadline)
        with rank, pytest.raises(WireError):
            rank.receive(kit.deadline)


def test_a_rank_that_is_reset_before_the_others_hear_of_it_is_named(kit, pair):
    ours, theirs = pair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire = Wire(ours)
    theirs.close()
    with pytest.raises(WireError):
        wire.receive(kit.deadline)
    with pytest.raises(LostError, match="rank 1 is gone"):
        introduce({1: (wire, kit.hello(1))}, Address(LOOPBACK, 1), 0)


def test_names_of_ranks():
    assert meeting.named([1]) == "rank 1"
    assert meeting.named([1, 2, 5]) == "ranks 1, 2 and 5"
