"""Along any way no write takes more accelerators than spec.autoscaling.budget, and what there is room for is done."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.budget_laws import WithinABudget
from tests.rollout_ways import EVENTS, STRATEGIES, Trajectory
from tests.rollout_world import CRASHING, GOOD, OTHER

TRAJECTORIES = 800
BUDGETED = st.one_of(
    *[EVENTS] * 4,
    st.tuples(st.just("allow"), st.integers(2, 9)),
    st.tuples(st.just("give"), st.integers(1, 2)),
    st.tuples(st.just("keep_warm"), st.booleans()),
)
seen = set()
"""What ways have come to, so that they are known to go where budgets are tight."""


class Thrifty(WithinABudget, Trajectory):
    """A world whose deployment has a budget; what it says is counted anew here, by pods."""

    def __init__(self, budget, count=1, **how):
        target = {"metric": "RequestsInFlight", "averageValue": "8"}
        wish = {"maxReplicas": 9, "targets": [target], "budget": {"accelerators": budget}}
        super().__init__(accelerator={"count": count}, autoscaling=wish, **how)

    def allow(self, budget):
        wish = self.deployment["spec"]["autoscaling"]
        self.spec(autoscaling={**wish, "budget": {"accelerators": budget}})

    def give(self, count):
        self.spec(accelerator={"count": count})

    def accelerate(self, given):
        """Not so: without accelerators there is no budget, and more than it allows are refused."""

    def mend(self):
        given = self.deployment["spec"]["accelerator"]
        super().mend()
        self.spec(accelerator=given)

    def keep_warm(self, does):
        self.roll(keepWarm={"replicas": 1, "for": "5m"} if does else None)

    @property
    def limit(self):
        return self.deployment["spec"]["autoscaling"]["budget"]["accelerators"]

    def cost(self, number):
        record = self.objects.get(("ControllerRevision", f"chat-r{number}"))
        return record["data"]["spec"]["accelerator"]["count"] if record else 0

    @property
    def taken(self):
        return sum(self.cost(pod.revision) for pod in (*self.pods, *self.ending))

    def _control(self):
        before = self.taken
        super()._control()
        assert self.taken <= max(before, self.limit), f"{self.taken} accelerators, {self.limit} are allowed"

    def _kept_warm(self, before):
        """What is kept warm goes first: that law holds where there is no budget."""

    def check(self):
        super().check()
        seen.add(self.ready[1])
        told = int(self.status.get("ready", "0/0").partition("/")[2])
        if 0 < told == self.wanted < self.deployment["spec"]["replicas"]:
            seen.add("cut")


@settings(max_examples=TRAJECTORIES)
@given(STRATEGIES, st.integers(1, 4), st.integers(2, 9), st.lists(BUDGETED, min_size=2, max_size=16))
def test_no_way_takes_more_than_the_budget_and_with_room_it_ends_where_spec_wants(rollout, replicas, budget, events):
    world = Thrifty(budget, replicas=replicas, rollout=rollout)
    if len(events) % 3:
        world.settle()
    for name, *arguments in events:
        getattr(world, name)(*arguments)
    world.mend()
    world.allow(100)
    world.settle()
    assert world.status["readyReplicas"] == world.deployment["spec"]["replicas"]
    assert world.weights[world.status["revision"]["stable"]] == 100
    assert world.step() == 0, "at rest there is nothing to do"


@settings(max_examples=200)
@given(st.integers(2, 4), st.integers(1, 2), st.lists(BUDGETED.filter(lambda event: event[0] != "give"), max_size=10))
def test_where_the_choice_is_ours_a_rollout_without_any_room_comes_to_its_end(replicas, count, events):
    """All cost the same: where one that serves has all there is, it stays, and what shall replace it waits."""
    world = Thrifty(replicas * count, count, replicas=replicas)
    for name, *arguments in events:
        getattr(world, name)(*arguments)
    world.mend()
    world.spec(replicas=replicas, rollout={}, accelerator={"count": count})
    world.allow(replicas * count)
    world.settle()
    assert world.there() == {world.status["revision"]["stable"]: replicas}


def test_ways_went_where_budgets_are_tight():
    assert {"WaitingForBudget", "Serving", "cut"} <= seen


def test_the_only_replica_is_not_taken_away_for_a_new_one_and_no_time_counts_until_there_is_room():
    world = Thrifty(1, replicas=1, rollout={"progressDeadline": "60s"})
    world.settle()
    world.edit(OTHER)
    for _ in range(100):
        world.tick(6)
    assert world.ready == ("False", "WaitingForBudget")
    assert "one more needs 1 x nvidia.com/gpu, and 0 of the budget of 1 are free" in world.message
    assert world.message.endswith("Revision 1 goes on serving with 1 replica.")
    assert (world.condition("Available"), world.condition("Stalled")) == ("True", "False")
    world.allow(2)
    world.settle()
    assert world.there() == {2: 1}


def put_aside(replicas):
    """A world in which an edit at zero has put aside what has all the budget, and is back before that had gone."""
    world = Thrifty(replicas, replicas=replicas)
    world.settle()
    world.lag(0)
    world.edit(OTHER)
    world.scale(0)
    world.ticks(4)
    world.scale(replicas)
    world.lagging.clear()
    assert (world.there(), world.roles()) == ({1: replicas}, {1: "retired", 2: "stable"})
    return world


def test_what_an_edit_at_zero_has_put_aside_gives_way_one_after_the_other():
    world = put_aside(3)
    world.settle()
    assert world.there() == {2: 3}


def test_the_only_one_that_an_edit_at_zero_has_put_aside_stays_until_there_is_room():
    """Gateways go on sending it requests, since they have nobody else."""
    world = put_aside(1)
    for _ in range(20):
        world.tick(6)
    assert world.there() == {1: 1}
    assert world.ready[0] == "False"
    world.allow(2)
    world.settle()
    assert world.there() == {2: 1}


def test_two_earlier_ones_give_way_together_and_not_each_for_itself():
    world = Thrifty(2, replicas=2)
    world.run()
    world.edit("engine:second")
    world.tick()
    world.edit("engine:third")
    world.until(lambda: sum(pod.ready for pod in world.pods) == 2)
    assert world.there() == {1: 1, 2: 1}
    world.settle()
    assert world.there() == {3: 2}


def test_the_only_replica_gives_way_when_it_answers_nobody():
    world = Thrifty(1, replicas=1)
    world.settle()
    world.fail(0)
    world.pods[0].image = CRASHING
    world.edit(OTHER)
    world.settle()
    assert world.there() == {2: 1}


@pytest.mark.parametrize("strategy", ["Canary", "BlueGreen"])
def test_what_needs_room_beside_says_so_before_it_starts_and_goes_on_with_some(strategy):
    steps = [{"weight": 50}] if strategy == "Canary" else []
    world = Thrifty(2, replicas=2, rollout={"strategy": strategy, "steps": steps, "progressDeadline": "60s"})
    world.settle()
    world.edit(OTHER)
    for _ in range(50):
        world.tick(6)
    assert world.ready == ("False", "WaitingForBudget")
    assert world.there() == {1: 2}
    world.allow(4)
    world.settle()
    assert world.there() == {2: 2}


def test_what_is_kept_warm_goes_first():
    world = Thrifty(3, replicas=2, rollout={"keepWarm": {"replicas": 1, "for": "1h"}})
    world.settle()
    world.edit(OTHER)
    world.until(lambda: world.there() == {1: 1, 2: 2} and world.roles()[1] == "warm")
    world.spec(replicas=3)
    world.settle()
    assert world.there() == {2: 3}


def test_a_rollout_in_a_full_budget_replaces_instead_of_adding():
    world = Thrifty(4, 2, replicas=2)
    world.settle()
    world.edit(OTHER)
    world.settle()
    assert world.there() == {2: 2}
    assert world.image_of(2) == OTHER
    world.edit(GOOD)
    world.settle()
    assert world.there() == {1: 2}, "the first revision is back under its number"


def test_a_dearer_one_that_never_comes_up_takes_away_what_one_of_it_needs_and_no_more():
    world = Thrifty(4, replicas=4)
    world.settle()
    world.spec(accelerator={"count": 2}, engine={"image": CRASHING})
    world.run()
    assert sum(pod.ready for pod in world.pods) == 4 - 2
    world.until(lambda: world.ready[1] == "RolledBack")
    world.until(lambda: world.there() == {1: 4})


@pytest.mark.parametrize(
    ("budget", "count", "after"), [(4, 2, 2), (5, 2, 2), (9, 4, 2), (8, 4, 2), (7, 3, 2), (12, 3, 4)]
)
def test_dearer_ones_replace_as_many_as_they_need_one_after_the_other(budget, count, after):
    world = Thrifty(budget, replicas=4)
    world.settle()
    world.spec(accelerator={"count": count}, engine={"image": OTHER})
    least = 4
    for _ in range(60):
        world.tick(6)
        least = min(least, sum(world.cost(pod.revision) for pod in world.pods if pod.ready))
    world.settle()
    assert world.there() == {2: after}
    assert least >= min(4, budget - count)


@pytest.mark.parametrize(
    "rollout",
    [{"maxSurge": 0, "maxUnavailable": 1}, {"maxSurge": 1, "maxUnavailable": 1}, {"maxSurge": 1}]
    + [{"strategy": strategy} for strategy in ("Canary", "BlueGreen")],
)
def test_where_fewer_may_be_missing_than_a_dearer_one_needs_none_gives_way_for_nothing(rollout):
    world = Thrifty(4, replicas=4, rollout=rollout)
    world.settle()
    world.spec(accelerator={"count": 2}, engine={"image": OTHER})
    for _ in range(60):
        world.tick(6)
        assert world.there() == {1: 4}
    assert world.ready == ("False", "WaitingForBudget")
    world.roll(strategy="RollingUpdate", maxSurge=0, maxUnavailable="50%")
    world.settle()
    assert world.there() == {2: 2}


def test_one_that_needs_all_there_is_waits_for_more_and_takes_nothing():
    world = Thrifty(4, replicas=4)
    world.settle()
    world.spec(accelerator={"count": 4}, engine={"image": OTHER})
    for _ in range(100):
        world.tick(6)
        assert world.there() == {1: 4}
    assert world.ready == ("False", "WaitingForBudget")
    assert "0 of 1 replicas are routable; one more needs 4 x nvidia.com/gpu" in world.message
    world.allow(5)
    world.settle()
    assert world.there() == {2: 1}


def test_a_higher_number_than_the_budget_allows_is_cut_and_told():
    world = Thrifty(5, 2, replicas=1)
    world.settle()
    world.spec(replicas=4)
    world.settle()
    assert world.there() == {1: 2}
    assert world.ready == ("True", "Serving")
    (decision,) = [one for one in world.status["decisions"] if one["kind"] == "Scale" and one["to"] == "r1: 2"]
    assert decision["reason"].endswith("spec.replicas is 4; the budget of 5 accelerators allows 2 of 4 replicas")


@pytest.mark.parametrize(
    ("budget", "warm", "strategy"),
    [(4, 1, (1, 0)), (3, 1, (0, 1)), (3, 0, (1, 0)), (2, 0, (0, 1))],
)
def test_a_restart_finds_its_room_in_the_budget(budget, warm, strategy):
    world = Thrifty(budget, replicas=2, rollout={"keepWarm": {"replicas": warm}} if warm else {})
    world.settle()
    replaces = world.objects["Deployment", "chat-r1"]["spec"]["strategy"]["rollingUpdate"]
    assert (replaces["maxSurge"], replaces["maxUnavailable"]) == strategy
