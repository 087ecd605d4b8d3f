"""Fewer GPUs than are asked for, on two nodes: who waits says for what, who serves goes on, and it ends once it can."""

import json
import time
from contextlib import ExitStack
from datetime import UTC, datetime

import pytest

from e2e.gpu import Gpu, offered
from e2e.waiting import each_second

GPUS = [Gpu(f"GPU-{n}{n}") for n in range(1, 7)]
TENANT = "tenant (NVIDIA-L4) has 1 of 2 free"
BUDGET, MOST = 2, 3
SCALING = {
    "maxReplicas": MOST,
    "targets": [{"metric": "RequestsInFlight", "averageValue": "1"}],
    "budget": {"accelerators": BUDGET},
}
A_MINUTE = 60


@pytest.fixture(scope="module")
def nodes(kit):
    """The cluster's node with six GPUs, and the tenant's with two; the name of the former."""
    kubectl = kit.stack.kubectl
    (node,) = kit.stack.get("nodes")["items"]
    with offered(kit.stack, *GPUS), ExitStack() as end:
        end.callback(kubectl, "delete", "node", "tenant")
        end.callback(kubectl, "delete", "pod", "theirs", "--namespace=default", "--force", "--grace-period=0")
        kubectl("apply", "--filename=-", stdin=(kit.directory / "tenant.yaml").read_text())
        amounts = {"nvidia.com/gpu": "2", "cpu": "8", "memory": "32Gi", "pods": "110"}
        ready = {"type": "Ready", "status": "True", "reason": "Simulated", "message": "nobody looks"}
        status = {"capacity": amounts, "allocatable": amounts, "conditions": [{**ready, **now("lastHeartbeatTime")}]}
        patch = json.dumps({"status": status})
        kubectl("patch", "node", "tenant", "--subresource=status", "--type=merge", f"--patch={patch}")
        with each_second(lambda: renew(kubectl), every=10):
            taints = lambda: kit.stack.get("node", "tenant")["spec"]["taints"]  # noqa: E731 - a look
            kit.eventually(taints, lambda found: len(found) == 1)
            yield node["metadata"]["name"]


@pytest.fixture(scope="module")
def models(kit, nodes):
    """Four GPUs are taken by `chat`, and one by `thrifty`."""
    kit.apply("models.yaml")
    kit.wait_ready("chat")
    kit.wait_ready("thrifty")


@pytest.fixture(scope="module")
def load(kit, models):
    """Clients of `chat`, all the while."""
    with kit.load(f"{kit.namespace}/chat", workers=1) as load:
        yield load


def test_an_autoscaler_gets_no_more_than_the_budget(kit, models, bar):
    with kit.load(f"{kit.namespace}/thrifty", workers=4, tokens=100) as rush, watched(kit, "thrifty") as taken:
        rush.goes_on()
        kit.patch("thrifty", autoscaling=SCALING)
        scaling = kit.eventually(
            lambda: kit.condition("thrifty", "ScalingActive"),
            lambda seen: f"of {MOST} replicas" in seen.get("message", ""),
            120,
        )
        kit.eventually(lambda: kit.row("thrifty")["READY"], lambda ready: ready == f"{BUDGET}/{BUDGET}", 120)
    assert f"The budget of {BUDGET} accelerators allows {BUDGET} of {MOST} replicas." in scaling["message"]
    (why,) = [one["reason"] for one in kit.status("thrifty")["decisions"] if one["to"].startswith(f"r1: {BUDGET}")]
    assert f"the budget of {BUDGET} accelerators allows {BUDGET} of {MOST} replicas" in why
    bar("budget", accelerators=BUDGET, most_taken=max(taken), requests=len(rush.records), failed=len(rush.failures()))
    assert max(taken) <= BUDGET
    assert rush.failures() == []


def test_a_rollout_without_room_names_the_nodes_and_then_replaces_one_by_one(kit, nodes, load, bar):
    began = time.monotonic()
    with each_second(lambda: ready(kit)) as samples:
        kit.patch("chat", model={"contextLength": 512})
        waiting = kit.reaches("chat", "WaitingForGPU", A_MINUTE)
        wanted = f"Needs 2 x nvidia.com/gpu on one node; {TENANT}, {nodes} (NVIDIA-H100-80GB-HBM3) has 0 of 6 free"
        assert wanted in waiting["message"]
        assert waiting["message"].endswith("Revision 1 goes on serving with 2 replicas.")
        kit.eventually(lambda: kit.status("chat")["revision"], lambda seen: seen == {"stable": 2}, 4 * A_MINUTE)
        kit.wait_ready("chat")
        load.goes_on()
    bar("scarce rollout", seconds=time.monotonic() - began, ready_min=min(samples), failed=len(load.failures()))
    assert min(samples) >= 1
    assert load.failures() == []


def test_what_waits_for_room_serves_once_there_is_some(kit, nodes, load):
    kit.kubectl("scale", "llmdep/chat", "--replicas=3")
    assert f"{TENANT}, {nodes} " in kit.reaches("chat", "WaitingForGPU", A_MINUTE)["message"]
    load.goes_on()
    kit.patch("thrifty", autoscaling=None, replicas=0)
    kit.eventually(lambda: kit.row("chat")["READY"], lambda told: told == "3/3")
    kit.wait_ready("chat")
    assert load.failures() == []


def now(field):
    return {field: datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")}


def renew(kubectl):
    """As a kubelet does; without it the node would be taken for dead."""
    patch = json.dumps({"spec": now("renewTime")})
    kubectl("patch", "lease", "tenant", "--namespace=kube-node-lease", "--type=merge", f"--patch={patch}")


def watched(kit, name):
    """Each second, how many of its pods there are, those that wait or end among them."""
    return each_second(lambda: len(kit.get("pods", f"--selector=moorage.dev/deployment={name}")["items"]))


def ready(kit):
    """How many replicas of `chat` are ready and not told to go."""
    pods = kit.get("pods", "--selector=moorage.dev/deployment=chat")["items"]
    staying = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    conditions = [one for pod in staying for one in pod["status"].get("conditions", ())]
    return sum((one["type"], one["status"]) == ("Ready", "True") for one in conditions)
