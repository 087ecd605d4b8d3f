"""Rollouts along random ways: edits, failures, reverts, shortages, gateway outages, actions, deaths, lost statuses.

`World` checks at every write that the promised replicas stay; here is where the ways end: at what spec asks for.
"""

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rollout_ways import EVENTS, STRATEGIES, Trajectory
from tests.rollout_world import OTHER, STUCK

TRAJECTORIES = 2000
counted = []


@settings(max_examples=TRAJECTORIES)
@given(STRATEGIES, st.integers(1, 4), st.lists(EVENTS, min_size=2, max_size=16))
def test_every_way_keeps_the_promise_and_ends_where_spec_wants(rollout, replicas, events):
    world = Trajectory(replicas=replicas, rollout=rollout)
    if len(events) % 3:
        world.settle()
    for name, *arguments in events:
        getattr(world, name)(*arguments)
    world.mend()
    world.settle()

    spec, status = world.deployment["spec"], world.status
    stable = status["revision"]["stable"]
    assert "candidate" not in status["revision"]
    assert world.image_of(stable) == "engine:new"
    assert world.weights[stable] == 100
    assert status["replicas"] == status["readyReplicas"] == spec["replicas"]
    roles = world.roles()
    assert [number for number, role in roles.items() if role == "stable"] == [stable]
    assert set(roles.values()) <= {"stable", "warm", "retired"}
    assert world.step() == 0, "at rest there is nothing to do"
    counted.append(len(events))


@settings(max_examples=100)
@given(STRATEGIES, st.integers(1, 4), st.lists(EVENTS, max_size=6))
def test_a_candidate_that_never_comes_up_is_given_up_when_its_time_is_over(rollout, replicas, events):
    world = Trajectory(replicas=replicas, rollout=rollout)
    for name, *arguments in events:
        getattr(world, name)(*arguments)
    world.mend()
    world.spec(replicas=max(1, world.wanted))
    world.settle()
    stable = world.status["revision"]["stable"]
    world.roll(progressDeadline="60s", autoRollback=True)
    world.edit(f"{STUCK}-at-last")
    begun = world.now
    world.until(lambda: world.ready[1] == "RolledBack")
    assert "ProgressDeadlineExceeded" in world.message
    assert timedelta(seconds=60) <= world.now - begun <= timedelta(seconds=70)
    assert world.weights[stable] == 100


@settings(max_examples=40)
@given(STRATEGIES, st.integers(1, 5), st.integers(0, 3))
def test_replicas_that_come_one_after_the_other_in_time_are_waited_for(rollout, replicas, pauses):
    """Each takes three quarters of the deadline, and pauses, which count for nothing, are longer than it."""
    world = Trajectory(replicas=replicas, rollout={**rollout, "gates": [], "progressDeadline": "60s"})
    world.settle()
    world.edit(OTHER)
    for _ in range(40):
        world.run()
        if pauses and world.status["revision"].get("candidate"):
            pauses -= 1
            world.act("pause")
            world.run()
            world.wait(100)
            world.act("resume")
            world.run()
        world.wait(45)
        world.start()
        world.sync()
        world.serve()
    world.settle()
    assert world.weights[2] == 100
    assert world.roles()[2] == "stable"


def test_so_many_ways_were_gone():
    print(f"\n{len(counted)} trajectories, {sum(counted)} events")  # noqa: T201 - the figure that this test is about
    assert len(counted) >= TRAJECTORIES
