"""What becomes of a request whose model has no target, and when its client is told to ask again."""

from dataclasses import replace

import pytest

from moorage_gateway.holding import CROWD_SECONDS, Case, judge, retry_after
from moorage_gateway.table import Model, Start

STARTING = Start(possible=True)
NOW = 1_000_000.0


def case(start=STARTING, *, full_at=4, **fields):
    model = Model("team-a", "chat", "chat", 0, "LoadingWeights", "Wait.", (), start, full_at)
    known = {"load": None, "open": 0.0, "ahead": 0, "behind": 0, "limit": 3, "fits": True, "left": 10.0}
    return Case(model, **{**known, "leaving": False, **fields})


@pytest.mark.parametrize(
    ("found", "act", "reason"),
    [
        (case(), "hold", "no_replica"),
        (case(ahead=2), "hold", "no_replica"),
        (case(ahead=3), "refuse", "held_too_many"),
        (case(ahead=2, fits=False), "refuse", "held_too_much"),
        (case(left=0), "refuse", "held_too_long"),
        (case(left=0, leaving=True), "refuse", "leaving"),
        (case(leaving=True), "hold", "no_replica"),
        (case(Start()), "refuse", "not_ready"),
        (replace(case(), model=None), "refuse", "model_not_found"),
        # There is a replica: whoever is first goes, as long as it has room.
        (case(load=0), "go", "replica_has_room"),
        (case(load=3, behind=9), "go", "replica_has_room"),
        (case(Start(), load=0), "go", "replica_has_room"),
        (case(load=0, ahead=1), "hold", "not_its_turn"),
        (case(load=0, ahead=99), "hold", "not_its_turn"),
        (case(load=4), "hold", "replica_is_full"),
        (case(load=4, open=CROWD_SECONDS), "go", "room_comes_too_late"),
        (case(load=4, open=CROWD_SECONDS, ahead=1), "hold", "not_its_turn"),
        # Nobody is refused because of room: the replica has a queue of its own, and says when that is full.
        (case(load=400, behind=3), "go", "too_many_wait"),
        (case(load=400, ahead=1, left=0), "go", "waited_long_enough"),
        (case(load=400, ahead=1, fits=False), "go", "no_memory_to_wait_in"),
    ],
)
def test_verdicts(found, act, reason):
    verdict = judge(found)
    assert (verdict.act, verdict.reason) == (act, reason)


@pytest.mark.parametrize(
    ("start", "waited", "seconds"),
    [
        (Start(possible=True, ready_at=NOW + 12.2, seconds=40), 0, 13),  # a start is under way
        (Start(possible=True, ready_at=NOW - 7.5, seconds=40), 0, 8),  # late: as late again
        (Start(possible=True, ready_at=NOW - 3000, seconds=40), 0, 40),  # but not by more than a start
        (Start(possible=True, ready_at=NOW, seconds=40), 0, 1),
        (Start(possible=True, seconds=40), 5, 40),  # it is about to begin
        (Start(possible=True), 4.2, 5),  # it has never started: as long again as the first has waited
        (Start(possible=True), 0, None),
        (Start(seconds=40, ready_at=NOW + 5), 5, None),  # nothing will start: no waiting helps
    ],
)
def test_retry_after_is_what_is_left_of_the_start(start, waited, seconds):
    assert retry_after(start, NOW, waited) == seconds
