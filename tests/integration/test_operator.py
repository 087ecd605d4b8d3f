"""The operator against a real API server, etcd and controller manager; pods become ready because the test says so."""

import json

from tests.integration.operator_kit import READY
from tests.integration.team_kit import CHILDREN, named, settled


def test_one_object_becomes_children_that_serve(operator, team, proxy):
    team.apply(replicas=2)
    team.eventually(team.reason, lambda reason: reason == "Scheduling")
    status = team.becomes("Serving")
    assert named(team.children()) == [
        ("ControllerRevision", "chat-r1"),
        ("Deployment", "chat-r1"),
        ("PodDisruptionBudget", "chat"),
        ("Service", "chat"),
    ]
    assert status["ready"] == "2/2"
    assert status["revision"] == {"stable": 1}
    revision = status["revisions"][0]
    assert revision["weight"] == 100
    assert revision["modelDigest"] == "sha256:" + "a" * 64
    assert revision["image"] == "moorage/runtime:1"
    conditions = {one["type"]: one for one in status["conditions"]}
    assert {kind: one["status"] for kind, one in conditions.items()} == {
        "Accepted": "True",
        "Available": "True",
        "Progressing": "False",
        "Ready": "True",
        "Stalled": "False",
    }
    assert conditions["Ready"]["message"] == "2 of 2 replicas answer requests."
    team.kubectl("wait", "--for=condition=Ready", "llmdep/chat", f"--namespace={team.namespace}", "--timeout=5s")


def test_r11_a_plain_object_takes_few_writes(operator, team, proxy, bar):
    """To make it and to scale it; that it takes none at rest is in R6, and in `test_resyncs_write_nothing`.

    Plain is one replica: a second one has a PodDisruptionBudget, and a status of its own where it is ready later.
    """
    team.apply()
    created = serves(team, proxy, 1)
    scale(team, 2)
    before = serves(team, proxy, 2)
    scale(team, 3)
    scaled = serves(team, proxy, 3) - before
    bar("R11 plain", create=created, scale=scaled)
    assert created <= 6, proxy.writes
    assert scaled <= 3, proxy.writes[before:]


def scale(team, replicas):
    team.kubectl("scale", "llmdep/chat", f"--replicas={replicas}", f"--namespace={team.namespace}")


def serves(team, proxy, replicas):
    """Wait until so many serve, and return how many writes that has taken so far."""
    team.eventually(team.kubelet.pods, lambda pods: len(pods) == replicas)
    settled(proxy)
    team.becomes("Serving")
    return settled(proxy)


def test_nothing_of_ours_has_a_finalizer_or_an_annotation_of_the_framework(operator, team):
    team.apply(replicas=2)
    team.becomes("Serving")
    objects = [team.get("llmdeployment", "chat"), *team.get(CHILDREN)["items"]]
    for one in objects:
        assert "finalizers" not in one["metadata"], one["metadata"]
        assert not [name for name in one["metadata"].get("annotations", {}) if "kopf" in name or "zalando" in name]


def test_resyncs_write_nothing(start_operator, team, proxy):
    operator = start_operator(resync=0.5)
    team.eventually(operator.leads, bool)
    team.apply(replicas=2)
    team.becomes("Serving")
    writes = settled(proxy, 2)
    done = 'controller_runtime_reconcile_total{controller="llmdeployment",result="success"}'
    before = operator.metric(done)
    team.eventually(lambda: operator.metric(done), lambda now: now >= before + 5)
    assert len(proxy.writes) == writes, proxy.writes[writes:]


def test_a_restart_writes_nothing_even_with_another_default_image(operator, start_operator, team, proxy):
    team.apply(replicas=2)
    team.becomes("Serving")
    writes = settled(proxy)
    pods = {pod["metadata"]["uid"] for pod in team.kubelet.pods()}
    assert operator.terminate() == 0
    newer = start_operator(image="moorage/runtime:2", resync=0.5)
    done = 'controller_runtime_reconcile_total{controller="llmdeployment",result="success"}'
    team.eventually(lambda: newer.metric(done), lambda now: now >= 3)
    assert proxy.writes[writes:] == []
    assert {pod["metadata"]["uid"] for pod in team.kubelet.pods()} == pods


def test_deletion_leaves_nothing(operator, team):
    team.apply(replicas=2)
    team.becomes("Serving")
    team.kubectl("delete", "llmdeployment", "chat", f"--namespace={team.namespace}")
    team.eventually(team.children, lambda left: left == [])


def test_kubectl_scale_goes_through_the_scale_subresource(operator, team):
    team.apply()
    team.becomes("Serving")
    for count in (3, 0, 1):
        team.kubectl("scale", "llmdep/chat", f"--replicas={count}", f"--namespace={team.namespace}")
        status = team.becomes("Serving" if count else "ScaledToZero")
        assert status["readyReplicas"] == status["replicas"] == count
        assert status["revision"] == {"stable": 1}, "a change of scale is no revision"
        budget = ("PodDisruptionBudget", "chat") in team.children()
        assert budget == (count >= 2)
    path = f"/apis/moorage.dev/v1alpha1/namespaces/{team.namespace}/llmdeployments/chat/scale"
    assert json.loads(team.kubectl("get", "--raw", path))["status"] == {
        "replicas": 1,
        "selector": "app.kubernetes.io/managed-by=moorage,moorage.dev/deployment=chat",
    }


def test_an_edit_rolls_out_beside_the_serving_revision(operator, team):
    team.apply(replicas=2)
    team.becomes("Serving")
    team.apply(replicas=2, engine={"image": "other:2"})
    team.eventually(team.reason, lambda reason: reason == "RollingOut")
    status = team.status()
    assert status["revision"] == {"stable": 1, "candidate": 2}
    assert {one["number"]: one["weight"] for one in status["revisions"]} == {1: 100, 2: 0}
    assert team.get("service", "chat")["spec"]["selector"]["moorage.dev/revision"] == "1"

    least = []

    def look():
        least.append(sum(1 for pod in team.kubelet.pods() if "Ready" in str(pod["status"].get("conditions"))))
        team.kubelet.ready()
        return team.status()

    team.eventually(look, lambda status: status["revision"] == {"stable": 2})
    assert min(least) >= 2
    team.eventually(lambda: named(team.children()), lambda children: ("Deployment", "chat-r1") not in children)
    assert team.get("service", "chat")["spec"]["selector"]["moorage.dev/revision"] == "2"
    assert ("ControllerRevision", "chat-r1") in team.children(), "the record stays, to go back to"
    records = [one["metadata"] for one in team.get("controllerrevisions")["items"]]
    roles = {one["name"]: one["labels"]["moorage.dev/role"] for one in records}
    assert roles == {"chat-r1": "retired", "chat-r2": "stable"}
    events = [event["message"] for event in team.get("events", "--field-selector=reason=Promoted")["items"]]
    told = "Revision 2 has all requests now, instead of revision 1: its replicas are routable, and its gates hold."
    assert events == [told]


def test_a_candidate_whose_image_cannot_be_pulled_leaves_the_rest_alone_and_can_be_taken_back(operator, team):
    team.apply()
    team.becomes("Serving")
    team.apply(engine={"image": "registry.example/nothing:1"})
    pods = team.eventually(lambda: team.kubelet.pods("moorage.dev/revision=2"), bool)
    waiting = {
        "reason": "ImagePullBackOff",
        "message": 'Back-off pulling image "registry.example/nothing:1": ErrImagePull: not found',
    }
    broken = {**READY["initContainerStatuses"][0], "ready": False, "state": {"waiting": waiting}}
    scheduled = {"type": "PodScheduled", "status": "True"}
    team.kubelet.report(pods[0], {"conditions": [scheduled], "initContainerStatuses": [broken]})
    team.eventually(team.reason, lambda reason: reason == "ImagePullFailed")
    status = team.status()
    ready = next(one for one in status["conditions"] if one["type"] == "Ready")
    assert ready["message"] == (
        "Revision 2: not found. The engine's image cannot be pulled. Check spec.engine.image for a typo and that "
        "the nodes may pull from its registry. Revision 1 goes on serving with 1 replica."
    )
    assert next(one for one in status["conditions"] if one["type"] == "Available")["status"] == "True"
    assert {one["number"]: one["weight"] for one in status["revisions"]} == {1: 100, 2: 0}
    warnings = [event["message"] for event in team.get("events", "--field-selector=reason=ImagePullFailed")["items"]]
    assert warnings == [ready["message"]]

    first = team.kubelet.pods("moorage.dev/revision=1")
    team.apply(engine={"env": [{"name": "EMPTY", "value": ""}]})
    team.eventually(team.status, lambda now: now["revision"] == {"stable": 1} and now["observedGeneration"] == 3)
    team.eventually(lambda: named(team.children()), lambda children: ("Deployment", "chat-r2") not in children)
    assert [pod["metadata"]["uid"] for pod in team.kubelet.pods()] == [first[0]["metadata"]["uid"]]
    assert team.reason() == "Serving"


def test_a_damaged_child_is_mended(operator, team):
    team.apply()
    team.becomes("Serving")
    patch = json.dumps({"spec": {"selector": {"moorage.dev/revision": "7"}}})
    team.kubectl("patch", "service", "chat", f"--namespace={team.namespace}", f"--patch={patch}")
    selector = team.eventually(
        lambda: team.get("service", "chat")["spec"]["selector"], lambda seen: seen["moorage.dev/revision"] == "1"
    )
    assert selector["moorage.dev/rank"] == "0"
    team.kubectl("delete", "deployment", "chat-r1", f"--namespace={team.namespace}")
    team.becomes("Serving")


def test_an_object_of_somebody_else_is_left_alone_and_named(operator, team):
    team.kubectl("create", "service", "clusterip", "chat", "--tcp=80", f"--namespace={team.namespace}")
    team.apply()
    team.eventually(team.reason, lambda reason: reason == "WorkloadRefused")
    ready = next(one for one in team.status()["conditions"] if one["type"] == "Ready")
    assert ready["message"].startswith(
        "Service chat exists and belongs to somebody else; remove it, or give this object another name. "
    )
    assert team.get("service", "chat")["metadata"]["labels"] == {"app": "chat"}


def test_a_policy_of_the_cluster_that_refuses_the_pods_is_named(operator, team):
    quota = ("create", "quota", "none", "--hard=pods=0", f"--namespace={team.namespace}")
    team.kubectl(*quota)
    team.apply()
    team.eventually(team.reason, lambda reason: reason == "QuotaExceeded")
    ready = next(one for one in team.status()["conditions"] if one["type"] == "Ready")
    assert "exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0" in ready["message"]


def test_an_object_that_was_deleted_and_made_again_gets_children_of_its_own(operator, team):
    team.apply()
    team.becomes("Serving")
    before = {child["metadata"]["uid"] for child in team.get(CHILDREN)["items"]}
    team.kubectl("delete", "llmdeployment", "chat", f"--namespace={team.namespace}", "--cascade=background")
    team.apply()
    uid = team.get("llmdeployment", "chat")["metadata"]["uid"]
    team.becomes("Serving")
    records = team.get("controllerrevisions", "--selector=moorage.dev/deployment=chat")["items"]
    assert [record["metadata"]["ownerReferences"][0]["uid"] for record in records] == [uid]
    assert not before & {child["metadata"]["uid"] for child in team.get(CHILDREN)["items"]}
