"""The operator behind a proxy that loses, delays, breaks and refuses what it should pass on."""

import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from aiohttp import web

from e2e.waiting import eventually
from tests.integration.desired import at_rest
from tests.integration.faults import stream_error
from tests.integration.operator_kit import Operator
from tests.integration.world_kit import LEAD_LOST

DONE = 'controller_runtime_reconcile_total{controller="llmdeployment",result="success"}'
BUSY_SECONDS = 5
RESYNC = 5
SILENCE_SECONDS = 70
"""After which a watch is given up that says nothing."""


def image(number):
    return {"image": f"engine:{number}"}


# R7: what may happen to a connection. What is edited meanwhile is found within seconds, and the process lives on.


def expired(world):
    world.proxy.hang_up(stream_error(410, "Expired", "too old resource version: 1 (2)") + "\n")


def broken(world):
    world.proxy.hang_up(stream_error(500, "InternalError", "etcdserver: no leader") + "\n")


def truncated(world):
    world.proxy.hang_up('{"type":"MODIFIED","object":{"kind":"Pod","apiVers')


def aborted(world):
    world.proxy.hang_up('{"type":"MODIFIED","object":{"kind":"Pod","apiVers', hard=True)


def too_many(world):
    loop = world.proxy.loop
    until = loop.time() + BUSY_SECONDS

    async def refuse(_request):
        return web.Response(status=429, headers={"Retry-After": "1"}) if loop.time() < until else None

    world.proxy.instead = refuse
    world.proxy.hang_up(hard=True)


def no_json(world):
    """A load balancer whose servers are away."""
    loop = world.proxy.loop
    until = loop.time() + BUSY_SECONDS

    async def excuse(_request):
        return web.Response(text="<html>back soon</html>", content_type="text/html") if loop.time() < until else None

    world.proxy.instead = excuse
    world.proxy.hang_up(hard=True)


def one_page(world):
    """The same page for one watch, while all others have been told to try again in a moment: then kopf ends, and may
    wait for ever for those to end, too."""
    loop, pages = world.proxy.loop, []
    until = loop.time() + BUSY_SECONDS

    async def excuse(request):
        if "watch" not in request.query or loop.time() >= until:
            return None
        if request.path.endswith("/services") and not pages:
            pages.append(request.path)
            return web.Response(text="<html>back soon</html>", content_type="text/html")
        return web.Response(status=429, headers={"Retry-After": "3"})

    world.proxy.instead = excuse
    world.proxy.hang_up(hard=True)


@pytest.fixture(scope="module")
def world(new_world, begun):
    with new_world() as world:
        world.serves(engine=image("first"))
        yield world


@pytest.mark.parametrize("fault", [expired, broken, truncated, aborted, too_many, no_json, one_page])
def test_r7_what_happens_while_nothing_is_heard_is_found_afterwards(world, fault, bar):
    world.proxy.hold()
    generation = world.apply(engine=image(fault.__name__))
    world.delete("services", "chat")
    began = time.monotonic()
    fault(world)
    found = world.rested(generation) - began
    eventually(lambda: world.names("services"), lambda names: names == ["chat"])
    bar(f"R7 {fault.__name__}", seconds=found, all_mended_seconds=time.monotonic() - began)
    assert world.died() == []


# What follows takes long and is mostly waiting: it goes on at the same time, each with an operator of its own.


@pytest.fixture(scope="module")
def begun(new_world, slow_faults):
    worlds = {
        token_replaced: new_world(as_caller=True),
        events_lost: new_world(resync=RESYNC),
        lagging_behind: new_world(),
        told_at_different_times: new_world(),
    }
    with ThreadPoolExecutor(len(worlds)) as pool:
        yield {scene: pool.submit(scene, world) for scene, world in worlds.items()}


def token(world, number):
    """A token that is good for as long as its Secret is there."""
    kind = {"apiVersion": "v1", "kind": "Secret"}
    path = f"/api/v1/namespaces/{world.namespace}"
    secret = world.api("POST", f"{path}/secrets", {**kind, "metadata": {"name": f"token-{number}"}})["metadata"]
    bound = {**kind, "name": secret["name"], "uid": secret["uid"]}
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"boundObjectRef": bound}}
    return world.api("POST", f"{path}/serviceaccounts/operator/token", asked)["status"]["token"]


def token_replaced(world):
    path = f"/api/v1/namespaces/{world.namespace}"
    world.api("POST", f"{path}/serviceaccounts", {"metadata": {"name": "operator"}})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    subject = {"kind": "ServiceAccount", "name": "operator", "namespace": world.namespace}
    binding = {"metadata": {"name": "operator"}, "roleRef": role, "subjects": [subject]}
    world.api("POST", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{world.namespace}/rolebindings", binding)
    world.operator.token = token(world, 1)
    with world:
        world.serves(engine=image(1))
        world.proxy.halting = 0.2
        world.operator.log_in(token(world, 2))
        world.api("DELETE", f"{path}/secrets/token-1")
        eventually(lambda: world.proxy.turned_away, bool)
        began = time.monotonic()
        world.proxy.hang_up(hard=True)
        found = world.rested(world.apply(engine=image(2)), seconds=SILENCE_SECONDS / 2) - began
        assert world.died() == []
        return {"seconds": found, "turned_away": world.proxy.turned_away}


def test_r7_a_token_that_is_replaced(begun, bar):
    bar("R7 token", **begun[token_replaced].result())


def events_lost(world):
    chance = random.Random(4)  # the same loss each time
    world.proxy.drops = lambda _plural, _line: chance.random() < 0.2
    wanted = {f"model-{n}": {"replicas": 1 + n % 2, "engine": image(1)} for n in range(10)}
    with world:
        world.api.together([world.request(name, spec) for name, spec in wanted.items()])
        created = at_rest(world, wanted)
        for name in ("model-0", "model-1"):
            world.delete("llmdeployments", name)
            del wanted[name]
        for n, spec in enumerate(wanted.values()):
            spec |= {"replicas": 1 + n % 3, "engine": image(2 if n % 2 else 1)}
        world.api.together([world.request(name, spec) for name, spec in wanted.items()])
        for name in ("model-2", "model-3"):
            world.delete("services", name)
            world.delete("deployments", f"{name}-r1")
        changed = at_rest(world, wanted)
        assert world.proxy.dropped >= 50
        assert world.died() == []
        return {"created_seconds": created, "changed_seconds": changed, "lost": world.proxy.dropped}


def test_r4_a_fifth_of_all_events_is_lost(begun, bar):
    bar("R4", **begun[events_lost].result(), resync_seconds=RESYNC)


def lagging_behind(world):
    """First the watches begin anew, in the past; then the operator does."""
    with world:
        world.serves("gone")
        world.serves(replicas=2, engine=image(1))
        world.serves(replicas=2, engine=image(2))
        at_rest(world, {"gone": {}, "chat": {"replicas": 2, "engine": image(2)}})
        world.proxy.remember()
        world.delete("llmdeployments", "gone")
        world.serves(replicas=3, engine=image(3))
        at_rest(world, {"chat": {"replicas": 3, "engine": image(3)}})

        pods, writes, looks = world.pods(), world.settled(), world.operator.metric(DONE)
        world.proxy.fall_behind()
        world.proxy.hang_up(stream_error(410, "Expired", "too old resource version: 1 (2)") + "\n")
        eventually(lambda: world.operator.metric(DONE), lambda now: now > looks)
        world.stop(Operator.kill)
        world.start()
        eventually(world.operator.log, lambda log: "the API server lags behind" in log)
        assert world.proxy.writes[writes:] == []

        world.proxy.catch_up()
        world.serves(replicas=4, engine=image(3))
        at_rest(world, {"chat": {"replicas": 4, "engine": image(3)}})
        assert pods < world.pods(), "none was made anew"
        assert world.names("controllerrevisions") == ["chat-r1", "chat-r2", "chat-r3"]
        touched = {part for _, address in world.proxy.writes[writes:] for part in address.split("/")}
        assert not touched & {"gone", "gone-r1", "chat-r2"}
        return {"pods_lost": 0, "made_twice": 0, "brought_back": 0, "writes_meanwhile": 0}


def test_r5_an_api_server_that_lags_behind(begun, bar):
    bar("R5 behind", **begun[lagging_behind].result())


LATE = {"llmdeployments": 0.0, "pods": 0.4, "deployments": 1.2, "controllerrevisions": 0.8, "services": 0.2}


def lag(plural, turn):
    """Seconds; another kind's in each turn."""
    plurals = list(LATE)
    return LATE[plurals[(plurals.index(plural) + turn) % len(plurals)]] if plural in LATE else 0.0


def told_at_different_times(world):
    wanted = {f"model-{n}": {"replicas": 1 + n % 2} for n in range(6)}
    with world:
        for turn in range(3):
            world.proxy.lags = lambda plural, turn=turn: lag(plural, turn)
            for spec in wanted.values():
                spec["engine"] = image(turn)
            world.api.together([world.request(name, spec) for name, spec in wanted.items()])
            at_rest(world, wanted)
        records = world.names("controllerrevisions")
        assert records == sorted(f"{name}-r{number}" for name in wanted for number in (1, 2, 3))
        return {"objects": len(wanted), "edits": 3 * len(wanted), "revisions": len(records)}


def test_r5_kinds_are_told_of_at_different_times(begun, bar):
    bar("R5 lags", **begun[told_at_different_times].result())


def test_r7_a_watch_that_says_nothing_any_more(slow_faults, bar):
    found = slow_faults.silent.rested(slow_faults.edited) - slow_faults.fell_silent
    bar("R7 stall", seconds=found)
    assert slow_faults.silent.died() == []
    slow_faults.silent.stop()  # or it would take time from all that is still to come


def test_r7_an_outage_of_a_minute(slow_faults, bar):
    """A leader that cannot renew has to end, and is started again once; then it waits, however long it lasts."""
    rested = slow_faults.cut_off.rested(slow_faults.edited_cut_off)
    ends = slow_faults.cut_off.kept.ends
    bar("R7 outage", seconds=rested - slow_faults.back, restarts=len(ends))
    assert rested > slow_faults.back
    assert LEAD_LOST in ends
    assert slow_faults.cut_off.died() == []
    slow_faults.cut_off.stop()
