"""Who may stand at the door, how many, and for how long."""

import errno
import socket

import pytest

from moorage_runtime.group import door
from moorage_runtime.group.door import Door
from moorage_runtime.group.errors import GroupError
from moorage_runtime.group.place import LOOPBACK
from moorage_runtime.group.wire import Wire, listen


@pytest.fixture
def listener():
    with listen(LOOPBACK, 0) as made:
        yield made


@pytest.fixture
def come(listener):
    """Strangers, who say nothing."""
    made = []

    def one():
        made.append(socket.create_connection(listener.getsockname()[:2]))
        made[-1].settimeout(0)
        return made[-1]

    yield one
    for stream in made:
        stream.close()


def is_closed(stream):
    try:
        return stream.recv(1) == b""
    except BlockingIOError:
        return False


def until(turns, condition):
    while not condition():
        assert turns.turn() == []


def test_who_says_nothing_in_time_is_sent_away(monkeypatch, listener, come):
    monkeypatch.setattr(door, "_HELLO_SECONDS", 0.0)
    at = Door(listener)
    stranger = come()
    until(at, lambda: is_closed(stranger))
    assert not at._strangers


def test_no_more_stand_there_than_there_is_room_for(monkeypatch, listener, come):
    monkeypatch.setattr(door, "_MOST_STRANGERS", 2)
    at = Door(listener)
    strangers = [come() for _ in range(4)]
    until(at, lambda: is_closed(strangers[1]))
    assert [is_closed(each) for each in strangers] == [True, True, False, False]
    at.close()
    until(at, lambda: all(map(is_closed, strangers)))


def test_who_speaks_is_handed_over(listener, come):
    at = Door(listener)
    silent, speaks = come(), come()
    with Wire(speaks) as wire:
        wire.send(b"hello")
        while not (said := at.turn()):
            pass
        ((theirs, frame),) = said
        assert frame == b"hello"
        theirs.send(b"come in")
        assert wire.receive(30) == b"come in"
        assert not is_closed(silent)
        at.close()
        theirs.close()


def test_a_machine_without_streams_left_is_an_error(monkeypatch, listener, come):
    class Full:
        fileno = listener.fileno

        @staticmethod
        def accept():
            raise OSError(errno.EMFILE, "Too many open files")

    come()
    at = Door(listener)
    monkeypatch.setattr(at, "_listener", Full())
    with pytest.raises(GroupError, match=r"can take no more streams: .*Too many open files"):
        at.turn()
