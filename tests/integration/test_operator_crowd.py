"""A hundred LLMDeployments: what they cost at rest, what is written on them, and what one bad one costs the others."""

import asyncio
import time
from contextlib import contextmanager

import pytest
from aiohttp import web

from e2e.waiting import eventually
from tests.integration.api_kit import CHILDREN
from tests.integration.desired import at_rest
from tests.integration.faults import passed_on
from tests.integration.world_kit import cpu_seconds

COUNT = 100
DONE = 'controller_runtime_reconcile_total{controller="llmdeployment",result="success"}'
FAILED = 'controller_runtime_reconcile_errors_total{controller="llmdeployment"}'
RESYNCS = 20
REFUSED, HANGING = "model-00", "model-01"


@pytest.fixture(scope="module")
def world(new_world, slow_faults):
    with new_world() as world:
        yield world


@pytest.fixture(scope="module")
def wanted():
    return {f"model-{n:02}": {"replicas": 1} for n in range(COUNT)}


@pytest.fixture(scope="module")
def hundred(world, wanted):
    """They serve."""
    world.api.together([world.request(*one) for one in wanted.items()])
    at_rest(world, wanted)
    world.settled(2)
    return world


def test_r6_resyncs_write_nothing(hundred, wanted, bar):
    """Also the first one, of an operator that has just been started."""
    begun = len(hundred.proxy.writes)
    hundred.stop()
    hundred.operator.resync = 0.5
    hundred.start()
    looks = eventually(lambda: hundred.operator.metric(DONE), lambda done: done >= RESYNCS * COUNT, 240)
    writes = hundred.proxy.writes[begun:]
    hundred.stop()
    hundred.operator.resync = 300
    hundred.start()
    bar("R6", objects=COUNT, looks=int(looks), writes=len(writes))
    assert writes == []


def test_r18_nothing_is_written_on_objects_but_what_they_are(hundred, bar):
    objects = [one for plural in ("llmdeployments", *CHILDREN, "leases") for one in hundred.items(plural)]
    finalizers = [one["metadata"] for one in objects if one["metadata"].get("finalizers")]
    notes = {name for one in objects for name in one["metadata"].get("annotations", ())}
    foreign = [name for name in notes if "kopf" in name or "zalando" in name]
    bar("R18", objects=len(objects), finalizers=len(finalizers), kopf_annotations=len(foreign))
    assert len(objects) > 4 * COUNT
    assert finalizers == []
    assert foreign == []


class Measured:
    """What it costs to scale the others up and down again."""

    def __init__(self, world, wanted):
        self.world = world
        self.others = {name: spec for name, spec in wanted.items() if name not in {REFUSED, HANGING}}
        self.all = wanted

    def round(self):
        """Seconds until all others are as asked for, the operator's CPU-seconds, and its writes about them."""
        began, cpu, writes = time.monotonic(), cpu_seconds(self.world.operator.process), len(self.world.proxy.writes)
        for replicas in (2, 1):
            specs = {name: {**spec, "replicas": replicas} for name, spec in self.all.items()}
            generations = self.world.api.together([self.world.request(*one) for one in specs.items()])
            for name, one in zip(specs, generations, strict=True):
                if name in self.others:
                    self.world.rested(one["metadata"]["generation"], name)
        seconds = time.monotonic() - began
        written = [one for _, one in self.world.proxy.writes[writes:] if REFUSED not in one and HANGING not in one]
        return seconds, cpu_seconds(self.world.operator.process) - cpu, len(written)


@contextmanager
def poison(proxy):
    """Writes about one object are refused, those about another get no answer for as long as this is on."""
    over = asyncio.Event()

    async def instead(request):
        if request.method == "GET":
            return None
        if HANGING in request.path:
            await over.wait()
        return web.Response(status=500, text="no") if REFUSED in request.path or HANGING in request.path else None

    proxy.instead = instead
    yield
    proxy.instead = passed_on
    proxy.loop.call_soon_threadsafe(over.set)


def test_r23_objects_that_fail_and_hang_cost_the_others_next_to_nothing(hundred, wanted, bar):
    measured = Measured(hundred, wanted)
    good = measured.round()
    failed = hundred.operator.metric(FAILED)
    with poison(hundred.proxy):
        bad = measured.round()
    tries = hundred.operator.metric(FAILED) - failed
    seconds, cpu, writes = (after / before for before, after in zip(good, bad, strict=True))
    ratios = {"seconds_ratio": seconds, "cpu_ratio": cpu, "writes_ratio": writes}
    bar("R23", objects=COUNT, poisoned=2, **ratios, failed_tries=int(tries))
    assert tries > 0
    assert writes < 1.5, "nothing more is written about the others"
    at_rest(hundred, wanted)
