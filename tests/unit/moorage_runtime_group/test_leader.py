"""What the leader of a group hears, and whom it blames."""

import contextlib
import threading

import pytest

from moorage_runtime.group import leader as leading
from moorage_runtime.group.errors import GroupError, LostError
from moorage_runtime.group.messages import Leaving, Loaded, Memory, Pong, Problem, Step, Stop, encode


def nothing():
    pass


def say(follower, *messages):
    for message in messages:
        follower._wire.send(encode(message))


def until_blamed(what):
    """Call it until it raises."""
    while True:
        what()
        threading.Event().wait(0.005)


def test_everyone_is_told_the_steps_and_the_end(together):
    group = together(3, in_one_pod=True)
    with group.leading() as leader:
        leader.tell(Step(b"1", b"", b"", b"", b"", b"", b""))
        assert {follower.next(nothing, expects=True).tokens for follower in group.followers} == {b"1"}
    for follower in group.followers:
        assert follower.next(nothing, expects=True) == Stop("")


def test_answers_come_in_the_order_of_the_ranks(together):
    group = together(3)
    say(group.followers[1], Loaded(2))
    say(group.followers[0], Pong(), Loaded(1), Memory("", 1, 1, 1))
    assert group.leader.hear(Loaded) == [Loaded(1), Loaded(2)]
    say(group.followers[1], Memory("", 2, 2, 2))
    assert [each.limit for each in group.leader.hear(Memory)] == [1, 2]


def test_a_rank_that_has_answered_and_is_lost_while_others_load_is_noticed(together):
    """Rank 2 says nothing for as long as rank 1 is waited for."""
    group = together(3)
    say(group.followers[0], Loaded(1))
    group.lose(1)
    with pytest.raises(LostError, match="rank 1 is gone"), group.leading() as leader:
        leader.hear(Loaded, seconds=3600.0)
    assert group.followers[1].next(nothing, expects=False) == Stop("rank 1 is gone")


def test_who_says_something_else_or_nothing_is_named(together):
    group = together(2)
    with pytest.raises(GroupError, match="rank 1 said nothing for 0 s"):
        group.leader.hear(Loaded, seconds=0.0)
    say(group.followers[0], Memory("", 1, 1, 1))
    with pytest.raises(GroupError, match="rank 1 said Memory instead of Loaded"):
        group.leader.hear(Loaded)


def test_what_is_no_message_is_told(together):
    group = together(2)
    group.followers[0]._wire.send(b"\xc1")
    with pytest.raises(GroupError, match="rank 1 sent what is none of its messages"):
        group.leader.hear(Pong)


def test_idle_ranks_are_asked_and_one_that_is_gone_is_noticed(monkeypatch, together, kit):
    monkeypatch.setattr(leading, "_PING_SECONDS", 0.0)
    group = together(2)
    with group.leading() as leader:
        with kit.on_thread(lambda: group.followers[0].next(nothing, expects=True)):
            for _ in range(20):
                assert leader.tend() == []
            leader.tell(Stop(""))
        group.lose(1)
        with pytest.raises(LostError, match="rank 1 is gone"):
            until_blamed(leader.tend)


def test_a_rank_that_answers_no_more_is_lost(monkeypatch, together):
    """It is stopped, not gone: its stream stays open."""
    monkeypatch.setattr(leading, "ANSWER_SECONDS", 0.02)
    group = together(2)
    with pytest.raises(GroupError, match="rank 1 has not answered for 0 s"):
        until_blamed(group.leader.tend)


def test_a_pod_that_was_told_to_end_is_told_once(together):
    group = together(3)
    group.followers[1].send(Leaving())
    told = []
    while not told:
        told = group.leader.tend()
    assert told == [2]
    assert group.leader.tend() == []


def test_a_rank_that_leaves_while_others_load_is_known_afterwards(together):
    group = together(2)
    say(group.followers[0], Leaving(), Loaded(1))
    assert group.leader.hear(Loaded) == [Loaded(1)]
    assert group.leader.tend() == [1]


def test_the_rank_that_was_killed_is_blamed_not_those_that_noticed(together):
    """However the leader sees it: torch does not say whose fault it was."""
    for what, vague in (("an exchange between the ranks failed: closed by peer", True), ("rank 2 is gone", False)):
        group = together(4)
        say(group.followers[0], Problem("EngineFailed", "an exchange between the ranks failed"))
        say(group.followers[2], Problem("EngineFailed", "rank 2 is gone"))
        group.lose(1)
        group.lose(3)
        group.lose(2)
        assert str(group.leader.broken(what, vague=vague)) == "rank 2 is gone"


def test_a_rank_that_left_its_reason_is_quoted(together):
    group = together(3)
    say(group.followers[0], Problem("EngineFailed", "MemoryError: no room"))
    group.lose(1)
    assert str(group.leader.broken("rank 1 is gone")) == "rank 1: MemoryError: no room"


def test_a_reason_that_a_person_can_mend_comes_before_all_others(together):
    group = together(3)
    say(group.followers[1], Problem("InsufficientMemory", "no room"))
    group.lose(2)
    group.lose(1)
    error = group.leader.broken("an exchange between the ranks failed", vague=True)
    assert (str(error), error.reason) == ("rank 2: no room", "InsufficientMemory")


@pytest.mark.parametrize(("vague", "said"), [(True, "rank 1: it failed here"), (False, "rank 2 did not come in time")])
def test_who_noticed_is_quoted_only_where_nobody_knows_better(monkeypatch, together, vague, said):
    monkeypatch.setattr(leading, "_LAST_WORDS_SECONDS", 0.05)
    group = together(3)
    say(group.followers[0], Problem("EngineFailed", "it failed here"))
    assert str(group.leader.broken("rank 2 did not come in time", vague=vague)) == said


def test_the_first_rank_to_blame_ends_the_wait(monkeypatch, together):
    """Nobody waits for the last words of a rank that is known to have none."""
    monkeypatch.setattr(leading, "_LAST_WORDS_SECONDS", 3600.0)
    group = together(3)
    group.lose(2)
    assert str(group.leader.broken("rank 2 is gone")) == "rank 2 is gone"


def test_a_follower_that_takes_nothing_any_more_does_not_hold_up_the_end(monkeypatch, together):
    monkeypatch.setattr(leading, "_LAST_WORDS_SECONDS", 0.05)
    group = together(2)
    stream = group.leader._wires[1]._socket
    stream.settimeout(0.2)
    with contextlib.suppress(TimeoutError):
        while True:
            stream.sendall(bytes(2**20))
    with group.leading():
        pass
    assert stream.fileno() == -1
