"""Streams between each two ranks, and who is in their way."""

import socket
import threading

import msgspec
import pytest

from moorage_runtime.group import links
from moorage_runtime.group.errors import GroupError, LostError
from moorage_runtime.group.follower import Follower
from moorage_runtime.group.links import connect_all
from moorage_runtime.group.messages import Join, Stop, encode
from moorage_runtime.group.place import LOOPBACK
from moorage_runtime.group.wire import Wire, listen


@pytest.fixture
def listener():
    with listen(LOOPBACK, 0) as made:
        yield made


def nothing():
    pass


@pytest.mark.parametrize("in_one_pod", [True, False])
def test_all_meet_and_have_ways_to_each_other(kit, together, in_one_pod):
    group = together(3, in_one_pod=in_one_pod)
    if in_one_pod:
        assert all(each.memory is not None and not each.streams for each in group.links)
    for each in group.links if not in_one_pod else []:
        for other in group.links:
            if other.rank != each.rank:
                each.streams[other.rank].settimeout(kit.deadline)
                each.streams[other.rank].sendall(bytes([each.rank]))
    for each in group.links if not in_one_pod else []:
        for other in group.links:
            if other.rank != each.rank:
                other.streams[each.rank].settimeout(kit.deadline)
                assert other.streams[each.rank].recv(1) == bytes([each.rank])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((group.leader.address.host, group.leader.address.port))


def test_a_stream_between_ranks_is_taken_only_with_the_groups_token(kit, listener):
    address = listener.getsockname()[:2]
    join = Join(b"token", [address, address], 0)
    found = []
    with kit.on_thread(lambda: found.extend(connect_all(0, join, listener, nothing))):
        for wrong in (["link", b"other", 1], ["link", b"token", 7], ["pong"]):
            with socket.create_connection(address) as stranger:
                Wire(stranger).send(msgspec.msgpack.encode(wrong))
                stranger.settimeout(kit.deadline)
                assert stranger.recv(1) == b""
        (right, _) = connect_all(1, join, listener, nothing)
    assert found[0] is None
    found[1].close()
    right.close()


def test_strangers_that_say_nothing_hold_nobody_up(kit, listener):
    """A scanner's connections come first, and a dozen of them."""
    address = listener.getsockname()[:2]
    join = Join(b"token", [address, address], 0)
    silent = [socket.create_connection(address) for _ in range(12)]
    (right, _) = connect_all(1, join, listener, nothing)
    turns = []
    _, taken = connect_all(0, join, listener, lambda: turns.append(1))
    assert len(turns) < 100  # each of at most a fifth of a second, and at once where somebody comes
    for stream in (*silent, right, taken):
        stream.close()


def test_a_rank_that_is_lost_meanwhile_is_noticed_by_the_leader(together, listener, monkeypatch):
    monkeypatch.setattr(links, "CONNECT_SECONDS", 3600.0)
    group = together(2)
    group.lose(1)
    with group.leading() as leader, pytest.raises(LostError, match="rank 1 is gone"):
        connect_all(0, Join(b"token", [(LOOPBACK, 1)] * 2, 0), listener, leader.look)


def test_a_leader_that_ends_meanwhile_is_noticed_by_a_follower(kit, pair, listener, monkeypatch):
    monkeypatch.setattr(links, "CONNECT_SECONDS", 3600.0)
    ours, theirs = pair()
    Wire(theirs).send(encode(Stop("rank 2 is gone")))
    join = Join(b"token", [listener.getsockname()[:2]] * 3, 0)
    with (
        pytest.raises(GroupError, match="rank 0 has ended: rank 2 is gone"),
        Follower(Wire(ours), kit.hello(1), join, listener) as follower,
    ):
        follower.links(nothing)


def test_a_rank_that_cannot_be_reached_is_named_with_its_address(monkeypatch, listener, kit):
    """A policy that lets the leader's port through and no other one: packets vanish."""
    address = listener.getsockname()[:2]

    def vanish(where, _seconds):
        raise TimeoutError("timed out")

    looks = []
    monkeypatch.setattr(links, "CONNECT_SECONDS", 0.0)
    monkeypatch.setattr(links.socket, "create_connection", vanish)
    with pytest.raises(GroupError, match=r"cannot reach rank 0 at 127\.0\.0\.1:\d+: timed out"):
        connect_all(1, Join(b"token", [address, address], 0), listener, lambda: looks.append(1))
    assert looks


def test_the_way_to_a_new_pod_may_be_open_later(monkeypatch, listener):
    """Routes and policies follow a pod's address by a moment."""
    connect, refusals = socket.create_connection, iter((ConnectionRefusedError(), OSError("No route to host")))

    def late(*where):
        if (error := next(refusals, None)) is not None:
            raise error
        return connect(*where)

    address = listener.getsockname()[:2]
    monkeypatch.setattr(links.socket, "create_connection", late)
    (right, _) = connect_all(1, Join(b"token", [address, address], 0), listener, nothing)
    right.close()
    assert next(refusals, None) is None


def test_a_rank_that_begins_before_its_stream_is_taken_is_named(listener):
    address = listener.getsockname()[:2]
    with socket.create_connection(address) as stream:
        frame = msgspec.msgpack.encode(["link", b"token", 1])
        stream.sendall(len(frame).to_bytes(4, "big") + frame + b"numbers")
        with pytest.raises(GroupError, match="rank 1 began before its stream was taken"):
            connect_all(0, Join(b"token", [address, address], 0), listener, nothing)


def test_a_rank_that_opens_no_stream_is_named(monkeypatch, listener):
    monkeypatch.setattr(links, "CONNECT_SECONDS", 0.0)
    monkeypatch.setattr(links, "_LONGER", 0.0)
    with pytest.raises(GroupError, match="rank 1 opened no stream to rank 0 in time"):
        connect_all(0, Join(b"token", [(LOOPBACK, 1)] * 2, 0), listener, threading.Event().is_set)
