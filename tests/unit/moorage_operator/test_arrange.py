"""Which groups a revision has: made, kept and let go whole."""

from datetime import timedelta

import pytest

from moorage_api.conditions import Reason
from moorage_operator.plan.arrange import Order, arrange
from moorage_operator.plan.capacity import PATIENCE
from moorage_operator.plan.figures import Gateway, RevisionFigures
from moorage_operator.plan.groups import Group
from moorage_operator.plan.pods import Replica
from moorage_operator.plan.routable import Routing


@pytest.fixture
def one(make):
    """A group, which is ready unless told otherwise."""

    def of(number, *, ready=True, restart="", stuck=None, there=True, **more):
        metadata = {"annotations": {"moorage.dev/restarted": restart}} if restart else {}
        workload = {
            "kind": "StatefulSet",
            "metadata": {"name": f"g{number}"},
            "spec": {"template": {"metadata": metadata}},
        }
        since = None if stuck is None else make.now - timedelta(seconds=stuck)
        told = {"ready_since": make.now - timedelta(minutes=5) if ready else None, "unschedulable_since": since}
        replica = Replica(1, ready, Reason.SCHEDULING, uid=f"u{number}", group=number, **told)
        return Group(number, workload if there else None, replica, **{"placed": ready, **more})

    return of


@pytest.fixture
def arranged(make):
    def of(*groups, wanted=None, routing=None, **order):
        asked = Order(len(groups) if wanted is None else wanted, **order)
        made = arrange(groups, asked, routing or Routing(None), make.now)
        return [one.number for one in made.kept], list(made.new), [one.number for one, _ in made.gone]

    return of


def test_as_many_as_are_wanted(one, arranged):
    assert arranged(wanted=2) == ([], [0, 1], [])
    assert arranged(one(0), one(1)) == ([0, 1], [], [])
    assert arranged(one(1), wanted=3) == ([1], [0, 2], [])
    assert arranged(one(0), one(1), wanted=0) == ([], [], [0, 1])


def test_what_is_not_ready_goes_first_then_the_latest(one, arranged):
    assert arranged(one(0), one(1, ready=False), one(2), wanted=2) == ([0, 2], [], [1])
    assert arranged(one(0), one(1), one(2), wanted=1) == ([0], [], [1, 2])


def test_what_no_gateway_knows_goes_before_what_they_know(one, arranged):
    known = Gateway("g", "now", revisions=(RevisionFigures(1, targets=frozenset({"u1"})),))
    assert arranged(one(0), one(1), wanted=1, routing=Routing((known,))) == ([1], [], [0])


def test_a_number_is_free_once_nothing_is_left_of_it(one, arranged):
    """The pods of a group that went finish their answers, and have the names that its next pods would need."""
    assert arranged(one(0, there=False), one(1), wanted=2) == ([1], [2], [])
    going = one(0)
    going.workload["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    assert arranged(going, wanted=1) == ([], [1], [])


def test_a_group_of_which_a_pod_was_told_to_go_is_replaced_at_once_by_one_of_another_number(one, arranged):
    assert arranged(one(0), one(1, ready=False, leaving=True), wanted=2) == ([0], [2], [1])
    assert arranged(one(0, leaving=True), wanted=0) == ([], [], [0])


# A restart


def test_a_restart_makes_other_groups_beside_what_serves(one, arranged):
    new = {"restart": "2"}
    assert arranged(one(0), one(1), **new) == ([0, 1], [2], [])
    assert arranged(one(0), one(1), one(2, ready=False, **new), wanted=2, **new) == ([0, 1, 2], [], [])
    whole = one(0), one(1), one(2, **new)
    assert arranged(*whole, wanted=2, spare=1, **new) == ([0, 2], [], [1])
    assert arranged(one(0), one(2, **new), wanted=2, **new) == ([0, 2], [1], [])
    assert arranged(*whole, wanted=2, spare=0, **new) == ([0, 1, 2], [], [])
    assert arranged(one(2, **new), one(3, **new), **new) == ([2, 3], [], [])


def test_without_surge_a_group_goes_before_its_successor_comes(one, arranged):
    how = {"restart": "2", "surge": 0, "spare": 1}
    assert arranged(one(0), one(1), **how) == ([0], [], [1])
    assert arranged(one(0), wanted=2, **{**how, "spare": 0}) == ([0], [1], [])
    assert arranged(one(0), one(1), **{**how, "spare": 0}) == ([0, 1], [], [])


def test_what_is_old_and_serves_nobody_goes_at_once(one, arranged):
    assert arranged(one(0, ready=False), one(1), restart="2", surge=0) == ([1], [], [0])


def test_of_what_is_alike_the_old_goes_when_fewer_are_wanted(one, arranged):
    assert arranged(one(0), one(1, restart="2"), wanted=1, surge=0, restart="2") == ([1], [], [0])


# Room


LONG = PATIENCE.total_seconds()


def test_of_several_that_wait_the_first_gets_what_the_others_hold(one, arranged):
    waiting = [one(number, ready=False, stuck=LONG, placed=True) for number in range(3)]
    assert arranged(*waiting) == ([0], [], [1, 2])
    assert arranged(waiting[0], one(1, ready=False, stuck=LONG)) == ([0, 1], [], []), "it holds nothing"
    early = [one(number, ready=False, stuck=LONG - 1, placed=True) for number in range(3)]
    assert arranged(*early) == ([0, 1, 2], [], [])


def test_the_first_gives_way_to_one_of_an_earlier_revision_that_is_whole_by_it(one, arranged):
    """Its successor comes once it has gone: at once it would take what it has just let go."""
    half = one(0, ready=False, stuck=LONG, placed=2)
    assert arranged(half, awaited=2) == ([], [], [0])
    assert arranged(half, awaited=3) == ([0], [], []), "nothing would be gained"
    assert arranged(half, one(1, ready=False, stuck=LONG, placed=1), awaited=1) == ([0], [], [1]), "that may be enough"
    assert arranged(one(0, ready=False, stuck=LONG - 1, placed=2), awaited=1) == ([0], [], [])
    assert arranged(one(0, ready=False, stuck=LONG), awaited=1) == ([0], [], []), "it holds nothing"
    assert arranged(one(0), awaited=1) == ([0], [], []), "it serves"


def test_while_one_waits_no_other_is_made(one, arranged):
    assert arranged(one(0, ready=False, stuck=LONG), wanted=3) == ([0], [], [])
    assert arranged(one(0, ready=False, stuck=LONG - 1), wanted=3) == ([0], [1, 2], [])


def test_it_is_looked_at_again_when_a_group_has_waited_long_enough(one, make):
    made = arrange((one(0, ready=False, stuck=LONG - 7),), Order(1), Routing(None), make.now)
    assert made.wakes == (7.0,)


@pytest.mark.parametrize(("fitting", "new"), [(None, [0, 1]), (5, [0, 1]), (1, [0]), (0, []), (-2, [])])
def test_no_more_are_made_than_the_budget_has_room_for(arranged, fitting, new):
    assert arranged(wanted=2, fitting=fitting) == ([], new, [])
