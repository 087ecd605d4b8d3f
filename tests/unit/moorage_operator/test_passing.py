"""Which status may wait a moment, since it only tells how far a start has come."""

import pytest

from moorage_operator.plan.passing import moves_nothing, passes
from moorage_operator.plan.planner import plan
from tests.rollout_world import CRASHING, OTHER, World


@pytest.fixture
def status(make):
    """The status of a deployment with one pod in that state."""

    def report(**pod):
        deployment = make.deployment()
        made = plan(make.running(deployment, make.on_node(**pod)), make.context).status
        return {**made, "startup": {**made["startup"], "estimatedReady": "2026-01-01T12:00:00Z"}}

    return report


LOADING = {"server": {"state": {"running": {}}, "started": False}}


def test_the_first_status_of_what_starts_passes(status):
    assert passes({}, status())


def test_a_further_phase_passes(status):
    assert passes(status(), status(**LOADING))
    assert status()["conditions"] != status(**LOADING)["conditions"]


def test_trouble_is_told_at_once(status, make):
    in_trouble = status(server=make.ended("boom"))
    assert not passes({}, in_trouble)
    assert not passes(status(), in_trouble)


def test_what_is_ready_is_told_at_once(make, status):
    deployment = make.deployment()
    serving = plan(make.running(deployment, make.ready()), make.context).status
    assert not passes({}, serving)
    assert not passes(status(), serving)


def test_of_a_rollout_only_phases_pass():
    world = World(replicas=1)
    world.settle()
    serving = world.status
    world.edit(OTHER)
    world.run()
    begun = world.status
    assert not passes(serving, begun), "that a rollout begins is told at once"
    world.schedule()
    world.run()
    placed = world.status
    assert placed["conditions"] != begun["conditions"]
    assert passes(begun, placed)
    world.start()
    world.sync()
    world.run()
    assert not passes(placed, world.status)


def test_how_many_are_ready_passes_while_more_are_awaited():
    world = World(replicas=1)
    world.settle()
    serving = world.status
    world.spec(replicas=3)
    world.run()
    scaled = world.status
    assert not passes(serving, scaled), "that it is scaled is told at once"
    world.start()
    world.sync()
    world.run()
    second = world.status
    assert (scaled["ready"], second["ready"]) == ("1/3", "2/3")
    assert passes(scaled, second)
    world.settle()
    assert world.status["ready"] == "3/3"
    assert not passes(second, world.status), "that all are there is told at once"
    assert not passes(world.status, second), "and that one went"


def test_what_gateways_know_of_and_figures_pass(status, make):
    serving = plan(make.running(make.deployment(), make.ready()), make.context).status
    (row,) = serving["revisions"]
    assert passes(serving, {**serving, "revisions": [{**row, "routable": 1}], "traffic": {"running": 1}})
    assert not passes(serving, {**serving, "revisions": [{**row, "weight": 50}]})


def test_a_candidate_in_trouble_does_not_pass():
    world = World(replicas=1)
    world.settle()
    world.edit(CRASHING)
    world.run()
    begun = world.status
    world.start()
    world.run()
    assert not passes(begun, world.status)


def test_another_generation_does_not_pass(status):
    assert not passes(status(), {**status(), "observedGeneration": 2})


def test_a_status_that_moves_requests_or_roles_waits_for_nothing():
    world = World(replicas=2)
    world.settle()
    before = world.status
    world.edit(OTHER)
    world.until(lambda: world.weights.get(2, 0) > 0)
    assert moves_nothing({}, before)
    assert moves_nothing(before, {**before, "startup": {}, "conditions": []})
    assert not moves_nothing(before, world.status)
