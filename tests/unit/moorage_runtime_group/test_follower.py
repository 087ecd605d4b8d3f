"""How a follower comes to its leader, and what it tells it at its end."""

import threading
from typing import ClassVar

import pytest

from moorage_runtime.engine.errors import StartError
from moorage_runtime.group import follower as following
from moorage_runtime.group.errors import GroupError
from moorage_runtime.group.fingerprint import Fingerprint
from moorage_runtime.group.follower import Follower, RefusedError
from moorage_runtime.group.meeting import Meeting
from moorage_runtime.group.messages import Join, Ping, Pong, Refused, Step, Stop, decode_hello, encode
from moorage_runtime.group.place import LOOPBACK, Address
from moorage_runtime.group.wire import Wire, listen


def nothing():
    pass


@pytest.fixture
def leader(kit):
    """Where a leader listens that says what a test has it say, to one stream after the other."""
    listener = listen(LOOPBACK, 0)
    kept = []

    class Said:
        address = Address(LOOPBACK, listener.getsockname()[1])
        hellos: ClassVar = []

        @staticmethod
        def say(*answers):
            for answer in answers:
                wire = Wire(listener.accept()[0])
                kept.append(wire)
                Said.hellos.append(decode_hello(wire.receive(kit.deadline)))
                if answer is not None:
                    wire.send(encode(answer))

    yield Said
    listener.close()
    for wire in kept:
        wire.close()


def test_a_refused_rank_does_not_ask_again(kit):
    with listen(LOOPBACK, 0) as listener:
        address = Address(LOOPBACK, listener.getsockname()[1])
        stop = threading.Event()

        def look(_missing):
            if stop.is_set():
                raise GroupError("enough")

        def wait():
            with pytest.raises(GroupError, match="enough"):
                Meeting(listener, kit.own).gather(look, kit.deadline)

        with kit.on_thread(wait):
            refused = "rank 0 does not take rank 1: it has another model than the leader"
            with pytest.raises(RefusedError, match=refused):
                Follower.join(address, kit.hello(1, model=Fingerprint("another")), streams=False)
            stop.set()


def test_a_rank_whose_last_life_is_not_forgotten_yet_asks_again(monkeypatch, kit, leader):
    monkeypatch.setattr(following, "_RETRY_SECONDS", 0.0)
    join = Join(b"token", [("", 1), (LOOPBACK, 2)], 0)
    twice = kit.on_thread(leader.say, Refused("there is a rank 1 already", again=True), join)
    with twice, Follower.join(leader.address, kit.hello(1), streams=False):
        pass
    assert len(leader.hellos) == 2


def test_a_leader_that_never_comes_is_told(kit):
    with pytest.raises(GroupError, match="rank 0 was not met at 127"):
        Follower.join(kit.nobody(), kit.hello(1), streams=False, seconds=0.0)


def test_a_leader_that_takes_a_rank_and_then_hangs_is_given_up(monkeypatch, kit, leader):
    monkeypatch.setattr(following, "SILENCE_SECONDS", 0.0)
    monkeypatch.setattr(following, "_LOOK_SECONDS", 0.01)
    with kit.on_thread(leader.say, None), pytest.raises(GroupError, match="has taken rank 1 and then said nothing"):
        Follower.join(leader.address, kit.hello(1), streams=False, seconds=0.0)


def test_a_rank_is_told_to_end_while_it_waits(monkeypatch, kit, leader):
    monkeypatch.setattr(following, "_LOOK_SECONDS", 0.01)

    def look():
        raise SystemExit(0)

    with kit.on_thread(leader.say, None), pytest.raises(SystemExit):
        Follower.join(leader.address, kit.hello(1), streams=False, look=look)


@pytest.mark.parametrize("streams", [True, False])
def test_a_port_is_open_only_where_the_others_come_to_it(kit, leader, streams):
    with kit.on_thread(leader.say, Stop("that is all")), pytest.raises(GroupError, match="rank 0 has ended: that is"):
        Follower.join(leader.address, kit.hello(1), streams=streams)
    (hello,) = leader.hellos
    assert (hello.port > 0) == streams


def test_the_leader_is_found_by_the_others_where_this_one_found_it(kit, leader):
    once = kit.on_thread(leader.say, Join(b"t", [("what it calls itself", 7), (LOOPBACK, 8)], 9))
    with once, Follower.join(leader.address, kit.hello(1), streams=False) as follower:
        assert follower.links(nothing).meeting == (LOOPBACK, 9)


@pytest.mark.parametrize(
    ("error", "said", "reason"),
    [
        (GroupError("no room", "InsufficientMemory"), "rank 1: no room", "InsufficientMemory"),
        (StartError("no GPU"), "rank 1: no GPU", "EngineFailed"),
        (OSError("the volume is gone"), "rank 1: OSError: the volume is gone", "EngineFailed"),
        (MemoryError(), "rank 1: MemoryError: ", "EngineFailed"),
    ],
)
def test_whatever_ends_a_rank_is_told_to_the_leader(together, error, said, reason):
    group = together(2)
    with pytest.raises(type(error)), group.followers[0]:
        raise error
    failed = group.leader.broken("rank 1 is gone")
    assert (str(failed), failed.reason) == (said, reason)


def test_a_rank_that_is_told_to_end_says_nothing(together):
    group = together(2)
    with pytest.raises(SystemExit), group.followers[0]:
        raise SystemExit(0)
    assert str(group.leader.broken("rank 1 is gone")) == "rank 1 is gone"


def test_a_leader_that_says_nothing_is_lost(monkeypatch, together):
    monkeypatch.setattr(following, "SILENCE_SECONDS", 0.1)
    monkeypatch.setattr(following, "_LOOK_SECONDS", 0.02)
    group = together(2)
    with pytest.raises(GroupError, match="rank 0 has said nothing"):
        group.followers[0].next(nothing, expects=True)


@pytest.mark.parametrize(
    ("reason", "said"), [("rank 2 is gone", "rank 0 has ended: rank 2 is gone"), (None, "rank 0 is gone")]
)
def test_a_leader_that_ends_while_a_rank_loads_is_noticed(kit, pair, reason, said):
    ours, theirs = pair()
    with Follower(Wire(ours), kit.hello(1), Join(b"token", [], 0)) as follower:
        follower.look()
        if reason:
            Wire(theirs).send(encode(Stop(reason)))
        theirs.close()
        with pytest.raises(GroupError, match=said):
            until_ended(follower.look)


def until_ended(look):
    while True:
        look()
        threading.Event().wait(0.005)


def test_pings_are_answered_while_a_follower_waits(together):
    group = together(2)
    group.leader.tell(Ping())
    group.leader.tell(Stop("enough"))
    assert group.followers[0].next(nothing, expects=True) == Stop("enough")
    assert group.leader._wires[1].receive(30) == encode(Pong())


def test_the_leaders_last_words_are_found_behind_what_it_said_before(together):
    group = together(2)
    with group.leading() as leader:
        leader.tell(Ping())
        leader.tell(Step(b"", b"", b"", b"", b"", b"", b""))
    assert group.followers[0].last_words(30) == Stop("")
    assert group.followers[0].last_words(30) is None
