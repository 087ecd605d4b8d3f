"""A status that is lost, or comes from an old backup, is made anew from what there is; no pod and no client notices."""

import json
import time

import pytest

from e2e.routed import routed

HALF = {1: 50, 2: 50}


@pytest.fixture(scope="module")
def before(kit):
    """The status from before the rollout, as a backup has it."""
    kit.apply("chat.yaml")
    kit.wait_ready("chat")
    return kit.status("chat")


@pytest.fixture(scope="module")
def half_way(kit, before):
    """Revision 2 has half of the requests, for an hour."""
    kit.patch("chat", model={"contextLength": 512})
    kit.eventually(lambda: kit.weights("chat"), lambda weights: weights == HALF)


@pytest.mark.parametrize("backup", ["none", "old"])
def test_in_the_middle_of_a_rollout(kit, before, half_way, bar, backup):
    pods = pod_uids(kit)
    with kit.load(f"{kit.namespace}/chat", workers=1) as load, routed(kit, "chat") as tables:
        load.goes_on(1)
        lost = put_status(kit, before if backup == "old" else {})
        status = kit.eventually(
            lambda: kit.status("chat"), lambda status: status.get("revision") == {"stable": 1, "candidate": 2}
        )
        kit.eventually(lambda: kit.weights("chat"), lambda weights: weights == HALF)
        seconds = time.time() - lost
        load.goes_on(3)
    bar("status", backup=backup, seconds_to_weights=seconds, requests=len(load.records), failed=len(load.failures()))
    assert load.failures() == []
    assert pod_uids(kit) == pods
    assert backup == "old" or all(view.weights == HALF for view in tables.views), "no share moved meanwhile"
    assert (status["rollout"]["step"], status["rollout"]["steps"]) == (1, 2)


def test_at_rest(kit, half_way, bar):
    kit.moor("rollout", "promote", "chat")
    kit.wait_ready("chat")
    kit.eventually(lambda: kit.weights("chat"), lambda weights: weights == {2: 100})
    kept, pods = lasting(kit), pod_uids(kit)
    lost = put_status(kit, {})
    kit.eventually(lambda: lasting(kit), lambda found: found == kept, 60)
    bar("status", backup="none", seconds_at_rest=time.time() - lost)
    assert pod_uids(kit) == pods
    assert kit.row("chat")["STATUS"] == "Serving"


def test_the_record_of_the_revision_that_serves(kit, half_way):
    """What it was is not known any more, so its successor is made of spec, and takes over like any other."""
    with kit.load(f"{kit.namespace}/chat", workers=1) as load:
        load.goes_on(1)
        kit.kubectl("delete", "controllerrevision", "chat-r2")
        kit.eventually(lambda: kit.status("chat")["revision"], lambda revision: revision == {"stable": 3})
        kit.eventually(lambda: kit.weights("chat"), lambda weights: weights == {3: 100})
        kit.wait_ready("chat")
        load.goes_on(1)
    assert load.failures() == []


def put_status(kit, status):
    """Write the whole status, as a restore does; when that was."""
    alone = kit.get("llmdeployment", "chat")
    alone["status"] = status
    del alone["metadata"]["resourceVersion"]  # whatever was written meanwhile
    kit.kubectl("replace", "--subresource=status", "--filename=-", stdin=json.dumps(alone))
    return time.time()


def lasting(kit):
    """The status without what tells of the past, and without figures."""
    status = kit.status("chat")
    told = {"decisions", "measured", "traffic", "startup", "conditions"}
    conditions = {one["type"]: (one["status"], one["reason"], one["message"]) for one in status.get("conditions", ())}
    return {**{name: value for name, value in status.items() if name not in told}, "conditions": conditions}


def pod_uids(kit):
    return {pod["metadata"]["uid"] for pod in kit.get("pods")["items"] if "deletionTimestamp" not in pod["metadata"]}
