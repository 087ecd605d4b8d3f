"""The budget of accelerators: who has how much, and what still fits."""

from datetime import UTC, datetime

import pytest

from moorage_operator.plan.budgeting import Ledger, ledger, replacing, restarting
from moorage_operator.plan.capacity import Budget
from moorage_operator.plan.divide import Share
from moorage_operator.plan.groups import Group
from moorage_operator.plan.revisions import Revision
from moorage_operator.plan.workloads import workloads
from moorage_operator.render.record import Role, Standing
from tests.rollout_world import OTHER
from tests.shortage_world import ScarceWorld

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def revision(number, count, pods=1):
    spec = {} if count is None else {"accelerator": {"count": count}}
    labels = {"moorage.dev/group-size": str(pods)} if pods > 1 else {"moorage.dev/rank": "0"}
    data = {"spec": spec, "template": {"metadata": {"labels": labels}, "spec": {"containers": [{}]}}}
    return Revision(number, Standing(Role.STABLE, ""), data, NOW)


def pod(number, **metadata):
    labels = {"moorage.dev/revision": str(number), **metadata.pop("labels", {})}
    return {"kind": "Pod", "metadata": {"labels": labels, **metadata}, "status": {}}


def share(number, replicas):
    return Share(number, replicas, 0, "wanted")


def test_what_is_asked_for_or_there_is_taken_whichever_is_more():
    drawn = ledger(8, [revision(1, 2)], {1: 2}, [pod(1), pod(1), pod(1, deletionTimestamp="soon")])
    assert drawn.room == 2, "one that goes holds what it has until it is gone"
    assert ledger(8, [revision(1, 2)], {1: 3}, []).room == 2


def test_pods_that_hold_nothing_do_not_count():
    ended = {**pod(1), "status": {"phase": "Failed"}}
    asks = pod(1, labels={"moorage.dev/purpose": "resolve"})
    assert ledger(8, [revision(1, 2)], {}, [ended, asks, pod(2)]).room == 8


def test_a_replica_of_several_pods_costs_them_all():
    drawn = ledger(16, [revision(1, 4, pods=2)], {1: 1}, [pod(1)])
    assert (drawn.costs, drawn.room) == ({1: 8}, 8)
    assert drawn.most([1]) == 2


def test_without_a_budget_everything_fits():
    drawn = ledger(None, [revision(1, 2)], {1: 5}, [])
    assert drawn == Ledger()
    assert drawn.within((share(1, 9),)) == (share(1, 9),)
    assert not drawn.lacks((share(1, 9),))
    assert not drawn.holds_back(1)
    assert not drawn.is_tight(5, 1, 2, 5)
    assert drawn.most([1]) is None


def test_replicas_without_accelerators_cost_nothing():
    drawn = ledger(2, [revision(1, None)], {1: 1}, [pod(1)])
    assert drawn.within((share(1, 9),)) == (share(1, 9),)
    assert drawn.most([1]) is None


def test_most_is_by_the_dearest_and_at_least_one():
    drawn = ledger(8, [revision(1, 2), revision(2, 4), revision(3, 16)], {}, [])
    assert [drawn.most([1]), drawn.most([1, 2]), drawn.most([3])] == [4, 2, 1]


def test_earlier_shares_get_the_room_first():
    drawn = ledger(5, [revision(1, 1), revision(2, 1)], {1: 2, 2: 1}, [])
    stable, candidate = drawn.within((share(1, 3), share(2, 3)))
    assert (stable.replicas, candidate.replicas) == (3, 2)
    assert candidate.reason == "wanted; the budget of 5 accelerators has no room for 1 more"
    assert drawn.lacks((share(1, 3), share(2, 3)))
    assert not drawn.lacks((share(1, 3), share(2, 2)))


def test_what_shrinks_gives_room_only_once_it_is_gone():
    drawn = ledger(4, [revision(1, 1), revision(2, 1)], {1: 3, 2: 1}, [])
    stable, candidate = drawn.within((share(1, 2), share(2, 2)))
    assert (stable.replicas, candidate.replicas) == (2, 1)


def test_a_lowered_budget_takes_nothing_away_and_adds_nothing():
    drawn = ledger(2, [revision(1, 1)], {1: 4}, [])
    assert drawn.lacks((share(1, 4),))
    assert drawn.within((share(1, 5),))[0].replicas == 4
    assert drawn.within((share(1, None),))[0].replicas is None


@pytest.mark.parametrize(
    ("limit", "wanted", "old", "new", "tight"),
    [(3, 2, 1, 1, False), (2, 2, 1, 1, True), (1, 1, 1, 1, True), (2, 1, 1, 1, False), (4, 2, 1, 2, True)],
)
def test_it_is_tight_where_one_more_than_wanted_does_not_fit_at_times(limit, wanted, old, new, tight):
    drawn = ledger(limit, [revision(1, old), revision(2, new)], {}, [])
    assert drawn.is_tight(wanted, 1, 2, wanted) is tight


@pytest.mark.parametrize(
    ("room", "wanted", "ready", "left"),
    [
        (Budget(1, 0), 2, 2, Budget(0, 0)),
        (Budget(1, 1), 2, 2, Budget(0, 1)),
        (Budget(1, 0), 2, 1, Budget(0, 1)),
        (Budget(0, 1), 3, 3, Budget(0, 1)),
    ],
)
def test_without_room_replicas_that_are_not_ready_give_way(room, wanted, ready, left):
    assert replacing(room, wanted, ready) == left


@pytest.mark.parametrize(
    ("room", "most", "there", "left"),
    [
        (Budget(1, 0), None, 9, Budget(1, 0)),
        (Budget(0, 2), None, 9, Budget(0, 2)),
        (Budget(3, 0), 6, 4, Budget(2, 0)),
        (Budget(3, 1), 4, 4, Budget(0, 1)),
        (Budget(1, 0), 4, 5, Budget(0, 1)),
    ],
)
def test_a_restart_adds_no_more_than_there_is_room_for(room, most, there, left):
    assert restarting(room, most, there) == left


# Along ways: `ScarceWorld` counts what pods hold at each change, those that still end among them.


def test_what_ends_holds_its_accelerators_though_its_revision_is_beyond_the_history():
    world = ScarceWorld(8, replicas=4, rollout={"revisionHistoryLimit": 1})
    world.settle()
    world.edit(OTHER)
    world.until(lambda: ("Deployment", "chat-r1") not in world.objects)
    left = len(world.ending)
    assert left, "they finish their answers"
    world.spec(replicas=8)
    world.run()
    assert len(world.pods) == 8 - left
    assert 1 in world.roles(), "its record says what they hold"
    world.settle()
    assert world.there() == {2: 8}
    assert set(world.roles()) == {2}


def test_groups_that_are_replaced_count_with_those_that_replace_them_before_there_are_pods_of_these():
    sets = [
        {
            "kind": "StatefulSet",
            "metadata": {"name": f"chat-r1-{index}"},
            "spec": {"template": {"metadata": {"annotations": {"moorage.dev/restarted": restart}}}},
        }
        for index, restart in enumerate(["", "", "again"])
    ]
    found = workloads((), {1: tuple(Group(index, one) for index, one in enumerate(sets))})
    assert (found[1].replicas, found[1].made) == (2, 3)
    sets[0]["metadata"]["deletionTimestamp"] = "soon"
    found = workloads((), {1: tuple(Group(index, one) for index, one in enumerate(sets))})
    assert found[1].made == 2


def test_single_pods_and_groups_have_one_budget_together():
    world = ScarceWorld(8, replicas=2, rollout={"strategy": "Canary", "steps": [{"weight": 99, "hold": "1h"}]})
    world.settle()
    world.shard(2)
    world.until(lambda: world.there() == {1: 2, 2: 2})
    world.strand(2)
    world.spec(replicas=3)
    world.run()
    assert world.taken == 7
