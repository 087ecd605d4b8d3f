"""How ranks find each other over TCP, and who is sent away."""

import socket
import struct
import threading

import msgspec
import pytest

from moorage_runtime.group.follower import Follower, RefusedError
from moorage_runtime.group.leader import Leader
from moorage_runtime.group.links import connect_all
from moorage_runtime.group.meeting import Meeting
from moorage_runtime.group.messages import PROTOCOL, Hello, Join, Ping, Pong, Step, Stop, encode
from moorage_runtime.group.place import LOOPBACK, Address, Place
from moorage_runtime.group.wire import Wire, WireError, listen
from moorage_runtime.model.errors import GroupError

DEADLINE_S = 30
OWN = Hello(PROTOCOL, ranks=3, rank=0, model="m", computing="bfloat16", port=0)


def hello(rank, **changed):
    return msgspec.structs.replace(OWN, rank=rank, **changed)


class Door:
    """A leader that waits for its ranks, on a thread."""

    def __init__(self, own=OWN):
        self.listener = listen(LOOPBACK, 0)
        self.address = Address(LOOPBACK, self.listener.getsockname()[1])
        self.joined = None
        self.missing = []
        self._thread = threading.Thread(target=self._wait, args=(own,))
        self._thread.start()

    def _wait(self, own):
        self.joined = Meeting(self.listener, own).gather(self.missing.append, DEADLINE_S)

    def connect(self):
        return Wire(socket.create_connection((LOOPBACK, self.address.port)))

    def come(self, rank, **changed):
        wire = self.connect()
        wire.send(encode(hello(rank, **changed)))
        return wire

    def close(self):
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()
        self.listener.close()
        for wire, _ in (self.joined or {}).values():
            wire.close()


@pytest.fixture
def door():
    made = Door()
    yield made
    made.close()


def ended(wire):
    """What the leader said before it closed the stream."""
    frames = []
    with wire:
        try:
            while (frame := wire.receive(DEADLINE_S)) is not None:
                frames.append(msgspec.msgpack.decode(frame))
        except WireError:
            return frames
    pytest.fail("the leader did not close the stream")


@pytest.mark.parametrize(
    ("rank", "changed", "why"),
    [
        (1, {"protocol": 99}, f"it speaks version 99 of the protocol, and the leader {PROTOCOL}"),
        (1, {"ranks": 2}, "it is of a group of 2 ranks, and the leader of 3"),
        (0, {}, "rank 0 is none that this group waits for"),
        (3, {}, "rank 3 is none that this group waits for"),
        (-1, {}, "rank -1 is none that this group waits for"),
        (1, {"model": "another"}, "it has another model than the leader"),
        (1, {"computing": "float32"}, "it was asked for float32, and the leader for bfloat16"),
    ],
)
def test_who_does_not_fit_is_told_why_and_the_others_join(door, rank, changed, why):
    assert ended(door.come(rank, **changed)) == [["refused", why]]
    kept = [door.come(1), door.come(2)]
    door.close()
    assert sorted(door.joined) == [1, 2]
    for wire in kept:
        wire.close()


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
def test_strangers_are_sent_away_without_a_word(door, said):
    with socket.create_connection((LOOPBACK, door.address.port)) as stranger:
        stranger.sendall(said)
        stranger.settimeout(DEADLINE_S)
        assert stranger.recv(100) == b""
    kept = [door.come(2), door.come(1)]
    door.close()
    assert sorted(door.joined) == [1, 2]
    for wire in kept:
        wire.close()


def test_a_stranger_that_says_nothing_keeps_nobody_waiting(door):
    with socket.create_connection((LOOPBACK, door.address.port)) as stranger:
        kept = [door.come(1), door.come(2)]
        door.close()
        assert sorted(door.joined) == [1, 2]
        stranger.settimeout(DEADLINE_S)
        assert stranger.recv(1) == b""
    for wire in kept:
        wire.close()


def test_a_rank_that_leaves_and_comes_again_is_taken_and_a_double_is_not(door):
    first = door.come(1)
    while door.missing[-1:] != [[2]]:
        threading.Event().wait(0.01)
    assert ended(door.come(1)) == [["refused", "there is a rank 1 already"]]
    first.close()
    while door.missing[-1:] != [[1, 2]]:
        threading.Event().wait(0.01)
    kept = [door.come(1), door.come(2)]
    door.close()
    assert sorted(door.joined) == [1, 2]
    for wire in kept:
        wire.close()


def test_ranks_that_do_not_come_are_named():
    with listen(LOOPBACK, 0) as listener, pytest.raises(GroupError, match="ranks 1 and 2 did not come within 0 s"):
        Meeting(listener, OWN).gather(lambda _missing: None, 0.0)


def together(ranks, *, in_one_pod=False):
    """A leader and its followers, each on a thread until they have met: (leader, links), [follower]."""
    with listen(LOOPBACK, 0) as probe:
        port = probe.getsockname()[1]
    local = ranks if in_one_pod else 1
    leader = Leader(Place(ranks, 0, local, Address(LOOPBACK, 0 if in_one_pod else port)))
    own = msgspec.structs.replace(OWN, ranks=ranks)
    memory = leader.memory if in_one_pod else None
    followers, links = {}, []

    def follow(rank):
        followers[rank] = Follower.join(
            leader.address, msgspec.structs.replace(own, rank=rank), local_ranks=local, memory=memory
        )

    threads = [threading.Thread(target=follow, args=(rank,)) for rank in range(1, ranks)]
    for thread in threads:
        thread.start()
    links = leader.gather(own, lambda _missing: None, DEADLINE_S)
    for thread in threads:
        thread.join(DEADLINE_S)
    return leader, links, [followers[rank] for rank in range(1, ranks)]


@pytest.mark.parametrize("in_one_pod", [True, False])
def test_all_meet_and_have_ways_to_each_other(in_one_pod):
    leader, links, followers = together(3, in_one_pod=in_one_pod)
    everyone = [links, *(follower.links for follower in followers)]
    if in_one_pod:
        assert all(each.memory >= 0 and not each.streams for each in everyone)
    for each in everyone if not in_one_pod else []:
        for other in everyone:
            if other.rank != each.rank:
                each.streams[other.rank].settimeout(DEADLINE_S)
                each.streams[other.rank].sendall(bytes([each.rank]))
    for each in everyone if not in_one_pod else []:
        for other in everyone:
            if other.rank != each.rank:
                other.streams[each.rank].settimeout(DEADLINE_S)
                assert other.streams[each.rank].recv(1) == bytes([each.rank])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((leader.address.host, leader.address.port))
    with leader:
        leader.tell(Step(b"1", b"", b"", b"", b"", b"", b""))
        assert {follower.next(lambda: None, expects=True).tokens for follower in followers} == {b"1"}
    for follower in followers:
        assert follower.next(lambda: None, expects=True) == Stop("")
        follower.close()
    close(everyone)


def close(links):
    for each in links:
        for stream in each.streams:
            if stream is not None:
                stream.close()


def test_the_end_of_a_rank_is_told_in_its_own_words():
    leader, links, followers = together(3)
    followers[1].say_why(GroupError("no room", "InsufficientMemory"))
    followers[1].close()
    with pytest.raises(GroupError, match="rank 2: no room") as caught, leader:
        leader.hear(Pong)
    assert caught.value.reason == "InsufficientMemory"
    # Rank 1 has said nothing; it hears why it is over.
    assert followers[0].next(lambda: None, expects=False) == Stop("rank 2: no room")
    followers[0].close()
    close([links, *(follower.links for follower in followers)])


def test_idle_ranks_are_asked_and_one_that_is_gone_is_noticed(monkeypatch):
    monkeypatch.setattr("moorage_runtime.group.leader._PING_SECONDS", 0.0)
    leader, links, (follower,) = together(2)
    answered = threading.Thread(target=lambda: follower.next(lambda: None, expects=True))
    answered.start()
    for _ in range(20):
        leader.tend()
    leader.tell(Stop(""))
    answered.join(DEADLINE_S)
    assert not answered.is_alive()
    follower.close()
    with pytest.raises(GroupError, match="rank 1 is gone"), leader:
        _tend_for_ever(leader)
    close([links, follower.links])


def _tend_for_ever(leader):
    while True:
        leader.tend()


def test_a_rank_that_answers_no_more_is_lost(monkeypatch):
    monkeypatch.setattr("moorage_runtime.group.leader.ANSWER_SECONDS", 0.0)
    leader, links, (follower,) = together(2)
    with pytest.raises(GroupError, match="rank 1 has not answered for 0 s"), leader:
        _tend_for_ever(leader)
    follower.close()
    close([links, follower.links])


def test_a_leader_that_says_nothing_is_lost(monkeypatch):
    monkeypatch.setattr("moorage_runtime.group.follower.SILENCE_SECONDS", 0.5)
    monkeypatch.setattr("moorage_runtime.group.follower._LOOK_SECONDS", 0.05)
    leader, links, (follower,) = together(2)
    with pytest.raises(GroupError, match="rank 0 has said nothing"):
        follower.next(lambda: None, expects=True)
    follower.close()
    with leader:
        pass
    close([links, follower.links])


def test_a_refused_rank_does_not_ask_again(door):
    with pytest.raises(RefusedError, match="rank 0 does not take rank 1: it has another model than the leader"):
        Follower.join(door.address, hello(1, model="another"), memory=0)
    kept = [door.come(1), door.come(2)]
    door.close()
    for wire in kept:
        wire.close()


def test_a_leader_that_never_comes_is_told():
    with listen(LOOPBACK, 0) as probe:
        nobody = Address(LOOPBACK, probe.getsockname()[1])
    with pytest.raises(GroupError, match="rank 0 was not met at 127"):
        Follower.join(nobody, hello(1), memory=0, seconds=0.0)


def test_a_stream_between_ranks_is_taken_only_with_the_groups_token():
    with listen(LOOPBACK, 0) as listener:
        address = (LOOPBACK, listener.getsockname()[1])
        join = Join(b"token", [address, address], 0)
        found = []
        taking = threading.Thread(target=lambda: found.extend(connect_all(0, join, listener)))
        taking.start()
        for wrong in (msgspec.structs.replace(join, token=b"other"), None):
            with socket.create_connection(address) as stranger:
                stranger.sendall(b"\0\0\0\1?" if wrong is None else b"")
                if wrong is not None:
                    Wire(stranger).send(msgspec.msgpack.encode(["link", wrong.token, 1]))
                stranger.settimeout(DEADLINE_S)
                assert stranger.recv(1) == b""
        (right, _) = connect_all(1, join, listener)
        taking.join(DEADLINE_S)
        assert found[0] is None
        found[1].close()
        right.close()


def test_pings_are_answered_while_a_follower_waits():
    leader, links, (follower,) = together(2)
    leader.tell(Ping())
    leader.tell(Stop("enough"))
    assert follower.next(lambda: None, expects=True) == Stop("enough")
    assert leader.hear(Pong) == [Pong()]
    follower.close()
    with leader:
        pass
    close([links, follower.links])
