"""Random shortages of accelerators: what is promised serves, who waits says for what, and nothing is given up."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rollout_world import GOOD, OTHER
from tests.shortage_world import CLUSTER, H100, L4, ScarceWorld

TRAJECTORIES = 350
SHORTAGES = 200
"""So many ways at least have to come to one."""
STRATEGIES = st.sampled_from(
    (
        {},
        {},
        {"progressDeadline": "1m"},
        {"maxSurge": 1, "maxUnavailable": 0, "progressDeadline": "1m"},
        {"maxSurge": 0, "maxUnavailable": 1},
        {"maxSurge": "50%", "maxUnavailable": "34%"},
        {"strategy": "Canary", "steps": [{"weight": 30}, {"weight": 60, "hold": "5s"}], "progressDeadline": "1m"},
        {"strategy": "BlueGreen", "keepWarm": {"for": "10s"}},
        {"keepWarm": {"replicas": 2, "for": "5m"}},
    )
)
BUDGETS = st.one_of(st.none(), st.none(), st.integers(2, 12))
NODES = st.sampled_from([node.name for node in CLUSTER if node.size])
PRODUCTS = st.sampled_from(((), (), (H100,), (L4,), (L4, H100)))
EVENTS = st.one_of(
    *[st.tuples(st.just("ticks"), st.integers(1, 5))] * 3,
    *[st.tuples(st.just("linger"))] * 3,
    *[st.tuples(st.just("edit"), st.sampled_from((GOOD, OTHER, "engine:third")))] * 3,
    *[st.tuples(st.just("scale"), st.integers(1, 6))] * 2,
    *[st.tuples(st.just("others"), NODES, st.integers(0, 4))] * 3,
    *[st.tuples(st.just("crowd"))] * 3,
    st.tuples(st.just("cordon"), NODES, st.booleans()),
    st.tuples(st.just("lose"), NODES),
    st.tuples(st.just("join"), NODES),
    st.tuples(st.just("want"), st.integers(1, 4), PRODUCTS),
    st.tuples(st.just("shard"), st.integers(1, 3)),
    st.tuples(st.just("strategy"), STRATEGIES),
    st.tuples(st.just("keep_warm"), st.sampled_from((None, "1m", "5m"))),
    st.tuples(st.just("allow"), BUDGETS),
    st.tuples(st.just("act"), st.just("restart")),
    st.tuples(st.just("lose_status")),
    st.tuples(st.just("step"), st.integers(0, 4)),
)
gone = []
"""Of each way that came to a shortage, how many pods waited."""
said = set()


@settings(max_examples=TRAJECTORIES)
@given(STRATEGIES, st.integers(1, 4), BUDGETS, st.lists(EVENTS, min_size=6, max_size=16))
def test_whatever_is_short_the_promise_holds_and_with_room_it_ends_where_spec_wants(rollout, replicas, budget, events):
    world = ScarceWorld(budget, replicas=replicas, rollout=rollout)
    if len(events) % 3:
        world.until(lambda: bool(world.status) and world.status["readyReplicas"] > 0)
        world.crowd()
    for name, *arguments in [*events, ("edit", "engine:last"), ("linger",)]:
        getattr(world, name)(*arguments)
    world.mend()
    world.settle()
    assert world.status["readyReplicas"] == world.deployment["spec"]["replicas"]
    assert world.weights[world.status["revision"]["stable"]] == 100
    assert world.step() == 0, "at rest there is nothing to do"
    said.update(world.reasons)
    if world.waited:
        gone.append(world.waited)


def test_so_many_shortages_were_gone_through(bar):
    bar("GPU shortage", shortages=len(gone), pods_without_room=sum(gone), below_the_promise=0, over_budget=0)
    assert len(gone) >= SHORTAGES
    assert {"WaitingForGPU", "WaitingForBudget", "Serving"} <= said


def test_what_an_edit_at_zero_has_put_aside_gives_way_one_after_the_other_on_a_full_cluster():
    world = ScarceWorld(replicas=2)
    world.settle()
    world.crowd()
    world.lag(0)
    world.edit(OTHER)
    world.scale(0)
    world.ticks(4)
    world.scale(2)
    world.lagging.clear()
    assert (world.there(), world.roles()) == ({1: 2}, {1: "retired", 2: "stable"})
    world.settle()
    assert world.there() == {2: 2}
