"""LLMDeployments at telling moments, recorded from the operator's own plan in a simulated cluster."""

import copy

import pytest


@pytest.fixture(scope="session")
def world_module(checkout, load_module):
    return load_module(checkout / "tests" / "rollout_world.py")


@pytest.fixture(scope="session")
def recorded(world_module):
    """`recorded(moment)`: the object then."""
    made = {}

    def record(moment):
        if moment not in made:
            world = _MOMENTS[moment](world_module.World)
            made[moment] = {"metadata": {}, **world.deployment}
        return copy.deepcopy(made[moment])

    return record


def _unseen(world):
    return world()


def _starting(world):
    made = world()
    made.run()
    return made


def _serving(world):
    made = world()
    made.settle()
    return made


def _edited(world):
    made = _serving(world)
    made.edit("engine:other")
    return made


def _rolling_out(world):
    made = _edited(world)
    made.run()
    return made


def _scaled_to_zero(world):
    made = world(replicas=0)
    made.run()
    made.wait(10)
    made.run()
    return made


def _paused(world):
    made = _rolling_out(world)
    made.act("pause")
    made.run()
    return made


def _paused_by_spec(world):
    made = _serving(world)
    made.roll(paused=True)
    made.edit("engine:other")
    made.run()
    return made


def _aborted(world):
    made = _rolling_out(world)
    made.act("abort")
    made.run()
    return made


def _invalid(world):
    made = _serving(world)
    made.spec(model={"source": "nowhere"})
    made.run()
    return made


def _no_such_revision(world):
    made = _serving(world)
    made.spec(rollbackTo={"revision": 9})
    made.run()
    return made


def _without_gateways(world):
    made = _rolling_out(world)
    for index in range(len(made.gateways)):
        made.silence(index, answering=False)
    made.run()
    return made


_MOMENTS = {
    "unseen": _unseen,
    "starting": _starting,
    "serving": _serving,
    "edited": _edited,
    "rolling_out": _rolling_out,
    "scaled_to_zero": _scaled_to_zero,
    "paused": _paused,
    "paused_by_spec": _paused_by_spec,
    "aborted": _aborted,
    "invalid": _invalid,
    "no_such_revision": _no_such_revision,
    "without_gateways": _without_gateways,
}
