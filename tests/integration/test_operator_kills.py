"""R3: the operator is killed after every single write, and what was asked for comes about all the same."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from e2e.waiting import eventually
from tests.integration.desired import at_rest
from tests.integration.world_kit import KILLED

FIRST, SECOND = {"image": "engine:1"}, {"image": "engine:2"}
DONE = 'controller_runtime_reconcile_total{controller="llmdeployment",result="success"}'
WAYS = {
    "create": (None, {"replicas": 2, "engine": FIRST}),
    "scale up": ({"replicas": 1, "engine": FIRST}, {"replicas": 3, "engine": FIRST}),
    "scale down": ({"replicas": 3, "engine": FIRST}, {"replicas": 1, "engine": FIRST}),
    "rollout": ({"replicas": 2, "engine": FIRST}, {"replicas": 2, "engine": SECOND}),
    "rollback": ({"replicas": 2, "engine": SECOND}, {"replicas": 2, "engine": SECOND, "rollbackTo": {"revision": 1}}),
}
SERVING = {"rollback": {"replicas": 2, "engine": FIRST}}


OFTEN = {"once": 1, "always": 1000}


@dataclass(frozen=True)
class Outcome:
    """`serves`, `rests`: seconds since the first kill. `ends`: how the operator ended each time."""

    kills: int
    ends: tuple[int, ...]
    serves: float
    rests: float
    late_writes: int


class Killer:
    """Ends the operator with each write, or with the first one only; `when` it did."""

    def __init__(self, world, times):
        self.operator, self.times, self.when = world.operator, times, []
        world.proxy.after = self

    def __call__(self, _write):
        if len(self.when) < self.times:
            self.when.append(time.monotonic())
            self.operator.process.kill()


def prepare(world, name, way):
    before, after = WAYS[way]
    if way == "rollback":
        world.serves(name, **WAYS["rollout"][0])
    if before is not None:
        world.serves(name, **before)
        at_rest(world, {name: before})
        idle(world)
    return after


def idle(world):
    """How many writes there were, once an operator has looked and finds nothing left to do."""
    eventually(lambda: world.operator.metric(DONE), bool)
    return world.settled(0.5)


def survive(world, way, often):
    name = f"{way}-{often}".replace(" ", "-")
    after = prepare(world, name, way)
    wanted = {name: SERVING.get(way, after)}
    begun, killer = len(world.kept.ends), Killer(world, OFTEN[often])
    serves = world.rested(world.apply(name, **after), name)
    at_rest(world, wanted)
    rests, written = time.monotonic(), idle(world)
    world.proxy.after = None
    at_rest(world, wanted)
    outcome = Outcome(
        kills=len(killer.when),
        ends=tuple(world.kept.ends[begun:]),
        serves=serves - killer.when[0],
        rests=rests - killer.when[0],
        late_writes=idle(world) - written,
    )
    world.delete("llmdeployments", name)
    at_rest(world, {})
    return outcome


def survive_all(world, way):
    with world:
        return {often: survive(world, way, often) for often in OFTEN}


@pytest.fixture(scope="module")
def survived(new_world, slow_faults):
    """All ways at the same time, each with an operator of its own: it mostly waits for the next one to start."""
    worlds = {way: new_world() for way in WAYS}
    with ThreadPoolExecutor(len(WAYS)) as pool:
        yield {way: pool.submit(survive_all, world, way) for way, world in worlds.items()}


@pytest.mark.parametrize("way", WAYS)
def test_r3_killed_after_every_write(survived, way, bar):
    """Once after the first write, which leaves the most to do; then, with another object, after each of them."""
    for often, outcome in survived[way].result().items():
        seconds = {"serves_seconds": outcome.serves, "rests_seconds": outcome.rests}
        bar(f"R3 {way} {often}", kills=outcome.kills, **seconds)
        assert outcome.ends.count(KILLED) == outcome.kills
        assert outcome.late_writes == 0
    assert outcome.kills > 2
