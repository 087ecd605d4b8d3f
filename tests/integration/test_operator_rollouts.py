"""Rollouts by the whole operator, with the rights that the chart gives it, on a real API server.

Kubelet and gateways are the test itself: pods become ready and requests are counted because it says so.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.operator_kit import addresses, make_gateway_pod
from tests.integration.team_kit import named, settled

GOOD, NEW = "engine:1", "engine:2"
ERRORS = {"metric": "ErrorRate", "max": "1%", "minRequests": 10}
CANARY = {
    "strategy": "Canary",
    "steps": [{"weight": 20, "hold": "1s"}, {"weight": 50, "hold": "1s"}],
    "gates": [ERRORS],
}


@pytest.fixture
def proxy(chart_proxy):
    return chart_proxy


@pytest.fixture
def operator_options():
    return {"gateways": True}


@pytest.fixture
def operator(start_operator, gateways, eventually):
    operator = start_operator()
    eventually(operator.leads, bool)
    eventually(lambda: [gateway.streams for gateway in gateways], all)
    return operator


class Scene:
    """Everybody does their part until something is so."""

    def __init__(self, team, gateways):
        self.team, self.gateways = team, gateways
        self.weights = []  # each weight of the newest revision that was seen, once
        self.errors = 0

    def look(self, *, traffic=True):
        self.team.kubelet.ready()
        one = self.team.look_at()
        status = one.get("status", {})
        rows = status.get("revisions", [{"number": 0, "weight": 0}])
        current = status.get("observedGeneration") == one["metadata"]["generation"]
        if current and self.weights[-1:] != [rows[-1]["weight"]]:
            self.weights.append(rows[-1]["weight"])
        for gateway in self.gateways:
            if gateway.closed:
                continue
            gateway.sync()
            for row in rows:
                if traffic and row["weight"]:
                    gateway.serve(row["number"], 10, errors=self.errors if row is rows[-1] and len(rows) > 1 else 0)
        return status

    def until(self, accept, seconds=60, *, traffic=True):
        return self.team.eventually(lambda: self.look(traffic=traffic), accept, seconds)

    def serves(self, number):
        return self.until(lambda status: ready(status) == "Serving" and status["revision"] == {"stable": number})


def ready(status):
    return next((one["reason"] for one in status.get("conditions", ()) if one["type"] == "Ready"), None)


def message(status):
    return next(one["message"] for one in status["conditions"] if one["type"] == "Ready")


@pytest.fixture
def scene(team, gateways):
    return Scene(team, gateways)


def begin(team, scene, rollout, replicas=2):
    """A first revision that serves, then an edit."""
    team.apply(replicas=replicas, engine={"image": GOOD}, rollout=rollout)
    scene.serves(1)
    scene.weights.clear()
    team.apply(replicas=replicas, engine={"image": NEW}, rollout=rollout)


def events(team, reason):
    return [one["message"] for one in team.get("events", f"--field-selector=reason={reason}")["items"]]


def test_a_canary_goes_through_its_steps_and_is_promoted(operator, team, scene, proxy):
    begin(team, scene, CANARY)
    scene.serves(2)
    assert [weight for weight in scene.weights if weight] == [20, 50, 100], scene.weights
    team.eventually(lambda: named(team.children()), lambda children: ("Deployment", "chat-r1") not in children)
    assert len(events(team, "Promoted")) == 1
    assert not events(team, "RolledBack")
    writes = settled(proxy, 3)
    for gateway in scene.gateways:
        gateway.serve(2, 1000)
    assert settled(proxy, 3) == writes, "requests at rest are no reason to write"


def test_a_failing_gate_sends_everything_back_at_once(operator, team, scene):
    scene.errors = 5
    begin(team, scene, CANARY)
    status = scene.until(lambda status: ready(status) == "RolledBack")
    assert scene.weights[-1] == 0
    assert max(scene.weights) == 20, "it never got more than its first step"
    assert "ErrorRate is 50.00%" in message(status)
    assert {one["number"]: (one["role"], one["weight"]) for one in status["revisions"]} == {
        1: ("stable", 100),
        2: ("failed", 0),
    }
    assert len(events(team, "RolledBack")) == 1

    scene.errors = 0
    team.kubectl("annotate", "llmdep/chat", "moorage.dev/action=retry/r2", f"--namespace={team.namespace}")
    status = scene.serves(2)
    assert status["rollout"]["lastAction"] == "retry/r2"


def test_gateways_that_are_away_stop_a_rollout_and_it_goes_on_with_them(operator, team, scene):
    begin(team, scene, CANARY)
    scene.until(lambda status: status["revision"].get("candidate") == 2)
    for gateway in scene.gateways:
        gateway.away()
    status = scene.until(lambda status: ready(status) == "GatewayUnreachable")
    assert message(status).startswith("Revision 2: 0 of 2 gateways answer")
    weights = {one["number"]: one["weight"] for one in status["revisions"]}
    for gateway in scene.gateways:
        gateway.back()
    status = scene.serves(2)
    assert weights[1] >= 50


def test_one_gateway_less_stops_nothing(operator, team, scene):
    scene.gateways[0].away()
    team.apply(replicas=1, engine={"image": GOOD}, rollout=CANARY)
    scene.serves(1)
    team.apply(replicas=1, engine={"image": NEW}, rollout=CANARY)
    scene.serves(2)
    scene.gateways[0].back()


def test_a_lost_status_comes_back(operator, team, scene):
    begin(team, scene, {**CANARY, "steps": [{"weight": 20, "hold": "1h"}]})
    scene.until(lambda status: status["revisions"][-1]["weight"] == 20)
    pods = {pod["metadata"]["uid"] for pod in team.kubelet.pods()}
    path = f"/apis/moorage.dev/v1alpha1/namespaces/{team.namespace}/llmdeployments/chat/status"
    alone = {**team.get("llmdeployment", "chat"), "status": {}}
    team.kubectl("replace", f"--raw={path}", "--filename=-", stdin=json.dumps(alone))
    status = scene.until(lambda status: status.get("revisions", [{}])[-1].get("weight") == 20)
    assert status["revision"] == {"stable": 1, "candidate": 2}
    assert {pod["metadata"]["uid"] for pod in team.kubelet.pods()} == pods
    for verb in ("promote", "promote"):
        team.kubectl(
            "annotate", "llmdep/chat", f"moorage.dev/action={verb}/r2", "--overwrite", f"--namespace={team.namespace}"
        )
    scene.serves(2)


def test_resyncs_and_restarts_in_the_middle_of_a_step_write_nothing(start_operator, team, scene, proxy):
    operator = start_operator(resync=0.5)
    team.eventually(operator.leads, bool)
    begin(team, scene, {**CANARY, "steps": [{"weight": 20, "hold": "1h"}]})
    scene.until(lambda status: status["revisions"][-1]["weight"] == 20)
    done = 'controller_runtime_reconcile_total{controller="llmdeployment",result="requeue_after"}'
    writes = settled(proxy, 3)
    before = operator.metric(done)
    team.eventually(lambda: operator.metric(done), lambda now: now >= before + 5)
    assert operator.terminate() == 0
    newer = start_operator(resync=0.5, image="moorage/runtime:2")
    team.eventually(lambda: newer.metric(done), lambda now: now >= 3)
    assert proxy.writes[writes:] == []


def test_a_movable_source_is_looked_up_once_by_a_pod_of_its_own(operator, team, scene):
    team.apply(model={"source": "hf://org/model@main"})
    asked = team.eventually(lambda: team.kubelet.pods("moorage.dev/purpose=resolve"), bool)
    commit = "c" * 40
    said = json.dumps({"source": f"hf://org/model@{commit}", "bytes": 1000})
    ended = {"name": "fetch", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
    ended["state"] = {"terminated": {"exitCode": 0, "message": said}}
    team.kubelet.report(asked[0], {"phase": "Succeeded", "containerStatuses": [ended]})
    status = scene.until(lambda status: ready(status) == "Serving")
    assert [one["source"] for one in status["revisions"]] == [f"hf://org/model@{commit}"]
    team.eventually(lambda: team.kubelet.pods("moorage.dev/purpose=resolve"), lambda pods: pods == [])


def test_the_warm_revision_gives_way_when_another_model_waits_for_accelerators(operator, team, scene):
    begin(team, scene, {"keepWarm": {"replicas": 1, "for": "1h"}}, replicas=1)
    scene.serves(2)
    team.eventually(lambda: len(team.kubelet.pods("moorage.dev/revision=1")), lambda count: count == 1)
    team.apply(name="other", accelerator={"count": 1})
    waiting = team.eventually(lambda: team.kubelet.pods("moorage.dev/deployment=other"), bool)
    words = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    unplaced = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words}
    team.kubelet.report(waiting[0], {"conditions": [unplaced]})
    chat = "moorage.dev/deployment=chat,moorage.dev/revision=1"
    team.eventually(lambda: team.kubelet.pods(chat), lambda pods: pods == [])
    team.eventually(lambda: team.reason("other"), lambda reason: reason == "WaitingForGPU")


PROMOTED = 0, "Serving", {1: "retired", 2: "stable"}
ROLLED_BACK = 5, "RolledBack", {1: "stable", 2: "failed"}


@pytest.mark.parametrize("way", [PROMOTED, ROLLED_BACK], ids=["on", "back"])
def test_killed_after_every_single_write_a_canary_still_comes_to_its_end(start_operator, team, scene, proxy, way):
    errors, reason, roles = way
    stable = next(number for number, role in roles.items() if role == "stable")
    operators = [start_operator()]
    team.eventually(operators[-1].leads, bool)
    rollout = {**CANARY, "steps": [{"weight": 50}]}
    team.apply(engine={"image": GOOD}, rollout=rollout)
    scene.serves(1)
    begun = settled(proxy)
    proxy.after = lambda _: operators[-1].process.kill()
    scene.errors = errors
    team.apply(engine={"image": NEW}, rollout=rollout)

    def look():
        if operators[-1].process.poll() is not None:
            operators.append(start_operator())
        return scene.look(), named(team.children())

    def is_over(seen):
        status, children = seen
        workloads = [name for kind, name in children if kind == "Deployment"]
        over = ready(status) == reason and status["revision"] == {"stable": stable}
        return over and workloads == [f"chat-r{stable}"]

    team.eventually(look, is_over, 400)
    proxy.after = None
    assert len(operators) > 5
    assert len(operators) >= len(proxy.writes) - begun, "each of them wrote once"
    records = [one["metadata"]["labels"] for one in team.get("controllerrevisions")["items"]]
    assert {int(one["moorage.dev/revision"]): one["moorage.dev/role"] for one in records} == roles
    told = [len(events(team, kind)) for kind in ("Promoted", "RolledBack")]
    assert told == [int(way is PROMOTED), int(way is ROLLED_BACK)], "each once, whoever died before or after telling it"


def test_figures_of_gpus_and_traffic_reach_the_status_once_a_minute(operator, team, scene, proxy):
    team.apply(accelerator={"count": 1})
    scene.until(lambda status: ready(status) == "Serving")
    uid = team.kubelet.pods()[0]["metadata"]["uid"]
    for gateway in scene.gateways:
        gateway.report(seen(uid, 40, running=3))
    status = team.eventually(team.status, lambda status: "gpu" in status)
    assert (status["gpu"]["utilization"], status["traffic"]["running"]) == (40, 3)
    writes = settled(proxy, 2)
    for utilization in (50, 60, 70):
        scene.gateways[0].report(seen(uid, utilization, running=utilization))
        assert settled(proxy, 1) == writes, "at most once a minute"
    scene.gateways[0].report({**seen(uid, 0), "gpu": {"available": False, "reason": "GPULost", "message": "Xid 79"}})
    healthy = team.eventually(
        lambda: {one["type"]: one for one in team.status()["conditions"]}["GPUHealthy"],
        lambda healthy: healthy["status"] == "False",
    )
    assert "GPULost: Xid 79" in healthy["message"]


def seen(uid, utilization, running=0):
    device = {"index": 0, "uuid": "GPU-1", "name": "H", "utilization": utilization, "memoryUtilization": 10}
    device |= {"memoryUsedMiB": 1000, "memoryTotalMiB": 2000, "temperature": 50, "powerWatts": None}
    gpu = {"available": True, "devices": [device]}
    return {"uid": uid, "running": running, "waiting": 0, "tokensPerSecond": 1.5, "gpu": gpu}


@pytest.fixture
def real_gateway(team, kubeconfig, tmp_path):
    """`moorage-gateway` as a process, with a pod that says where it is."""
    address = next(addresses)
    environ = os.environ | {"MOORAGE_WATCH_NAMESPACE": team.namespace, "MOORAGE_KUBECONFIG": str(kubeconfig)}
    flags = [f"--host={address}", "--public-port=8080", "--internal-port=8081", "--pod-name=gateway-0"]
    with (tmp_path / "gateway.log").open("w") as log:
        program = Path(sys.executable).with_name("moorage-gateway")
        process = subprocess.Popen([program, *flags], env=environ, stdout=log, stderr=log)
    make_gateway_pod(team, "gateway-0", address)
    yield process
    process.kill()
    process.wait(30)


def test_the_real_gateway_tells_what_a_rollout_waits_for(start_operator, real_gateway, team):
    team.eventually(start_operator().leads, bool)
    scene = Scene(team, [])
    team.apply(replicas=2, engine={"image": GOOD})
    scene.serves(1)
    team.eventually(lambda: team.status()["revisions"][0]["routable"], lambda count: count == 2)
    team.apply(replicas=2, engine={"image": NEW})
    scene.serves(2)
    team.eventually(lambda: named(team.children()), lambda children: ("Deployment", "chat-r1") not in children)

    real_gateway.kill()
    team.apply(replicas=2, engine={"image": "engine:3"})
    status = scene.until(lambda status: ready(status) == "GatewayUnreachable")
    assert status["revision"] == {"stable": 2, "candidate": 3}
