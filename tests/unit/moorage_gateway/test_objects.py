"""What is read out of the API server's objects."""

import copy

import pytest

from moorage_gateway import objects
from moorage_gateway.table import Revision, Start, Target

POD = {
    "metadata": {
        "namespace": "team-a",
        "name": "chat-r2-abc",
        "uid": "uid-1",
        "labels": {"moorage.dev/deployment": "chat", "moorage.dev/revision": "2", "moorage.dev/rank": "0"},
    },
    "status": {"podIP": "10.0.0.7", "conditions": [{"type": "Ready", "status": "True"}]},
}
DEPLOYMENT = {
    "metadata": {"namespace": "team-a", "name": "chat", "creationTimestamp": "2026-11-22T08:00:00Z"},
    "spec": {"model": {"source": "python://m", "servedName": "smol"}},
    "status": {
        "conditions": [
            {"type": "Progressing", "status": "True", "reason": "RollingOut", "message": "no"},
            {"type": "Ready", "status": "False", "reason": "LoadingWeights", "message": "0 of 1 replicas is ready."},
        ],
        "revisions": [{"number": 1, "weight": 90}, {"number": 2, "weight": 10}],
    },
}


def _pod(**status):
    pod = copy.deepcopy(POD)
    pod["status"] |= status
    return pod


def test_a_ready_pod_is_a_replica():
    replica = objects.replica(POD)
    assert (replica.key, replica.revision) == (("team-a", "chat"), 2)
    assert replica.target == Target("uid-1", "chat-r2-abc", "10.0.0.7:8000")


def test_an_ipv6_address_is_bracketed():
    assert objects.replica(_pod(podIP="fd00::7")).target.address == "[fd00::7]:8000"


@pytest.mark.parametrize(
    "change",
    [
        {"status": {"podIP": None}},
        {"status": {"podIP": ""}},
        {"status": {"conditions": []}},
        {"status": {"conditions": [{"type": "Ready", "status": "False"}]}},
        {"status": {"conditions": [{"type": "ContainersReady", "status": "True"}]}},
        {"metadata": {"deletionTimestamp": "2026-11-22T08:00:00Z"}},
        {"metadata": {"labels": {}}},
        {"metadata": {"labels": POD["metadata"]["labels"] | {"moorage.dev/rank": "1"}}},
        {"metadata": {"labels": POD["metadata"]["labels"] | {"moorage.dev/revision": "two"}}},
        {"metadata": {"labels": {"moorage.dev/deployment": "chat", "moorage.dev/rank": "0"}}},
    ],
)
def test_any_other_pod_takes_no_requests(change):
    pod = copy.deepcopy(POD)
    for part, fields in change.items():
        pod[part] |= fields
    assert objects.replica(pod) is None


def test_a_pod_without_status_takes_no_requests():
    assert objects.replica({"metadata": POD["metadata"]}) is None


def test_a_deployment_gives_its_name_weights_and_ready_condition():
    found = objects.deployment(DEPLOYMENT)
    assert (found.key, found.public_name, found.created) == (("team-a", "chat"), "smol", 1795334400)
    assert (found.reason, found.message) == ("LoadingWeights", "0 of 1 replicas is ready.")
    assert found.weights == {1: 90, 2: 10}


def test_the_public_name_is_the_objects_own_without_a_served_name():
    assert objects.deployment({"metadata": DEPLOYMENT["metadata"]}).public_name == "chat"


def test_an_object_that_the_operator_has_not_seen_yet_says_so():
    found = objects.deployment({"metadata": DEPLOYMENT["metadata"], "spec": DEPLOYMENT["spec"]})
    assert found.reason == "Pending"
    assert found.message == "The operator has not reported on this LLMDeployment yet."


@pytest.mark.parametrize("name", ["a\r\nx-evil: 1", "a b", "é", "team-b/chat", "", "a" * 300, 5])
def test_a_name_that_could_not_travel_in_a_header_is_not_served(name):
    found = objects.deployment(DEPLOYMENT | {"spec": {"model": {"servedName": name}}})
    assert found is None or found.public_name == "chat"


def test_a_model_has_every_revision_that_has_weight_or_pods():
    replicas = [
        objects.replica(POD | {"metadata": POD["metadata"] | {"uid": uid, "name": pod, "labels": labels}})
        for uid, pod, labels in [
            ("u2", "b", POD["metadata"]["labels"]),
            ("u1", "a", POD["metadata"]["labels"]),
            ("u3", "c", POD["metadata"]["labels"] | {"moorage.dev/revision": "3"}),
        ]
    ]
    model = objects.model(objects.deployment(DEPLOYMENT), replicas)
    address = "10.0.0.7:8000"
    assert model.revisions == (
        Revision(1, 90, ()),
        Revision(2, 10, (Target("u1", "a", address), Target("u2", "b", address))),
        Revision(3, 0, (Target("u3", "c", address),)),
    )
    assert (model.full_name, model.deployment, model.can_serve) == ("team-a/smol", "chat", True)


def _member(index, *, group="0", size="2", revision="2", **status):
    """A pod of a replica over several pods, as a StatefulSet's controller makes it."""
    labels = {
        "moorage.dev/deployment": "chat",
        "moorage.dev/revision": revision,
        "moorage.dev/group": group,
        "moorage.dev/group-size": size,
        "apps.kubernetes.io/pod-index": str(index),
    }
    name = f"chat-r{revision}-{group}-{index}"
    metadata = {"namespace": "team-a", "name": name, "uid": name, "labels": labels}
    return {"metadata": metadata, "status": POD["status"] | status}


def _targets(*pods):
    """The pods that get requests, by revision."""
    found = [replica for pod in pods if (replica := objects.replica(pod)) is not None]
    model = objects.model(objects.deployment(DEPLOYMENT), found)
    return {one.number: [target.pod for target in one.targets] for one in model.revisions if one.targets}


def test_of_a_whole_group_the_first_pod_is_the_target():
    assert _targets(_member(1), _member(0)) == {2: ["chat-r2-0-0"]}


@pytest.mark.parametrize(
    "change",
    [
        {"status": {"conditions": [{"type": "Ready", "status": "False"}]}},
        {"status": {"podIP": None}},
        {"metadata": {"deletionTimestamp": "2026-11-22T08:00:00Z"}},
    ],
)
@pytest.mark.parametrize("index", [0, 1])
def test_a_partial_group_gets_nothing(index, change):
    """Whichever pod it is that is not there: without its part of the model nobody has an answer."""
    lost = _member(index)
    for part, fields in change.items():
        lost[part] |= fields
    assert _targets(lost, _member(1 - index)) == {}
    assert _targets(_member(1 - index)) == {}


def test_pods_of_another_group_or_revision_make_no_group_whole():
    assert _targets(_member(0), _member(1, group="1")) == {}
    assert _targets(_member(0), _member(1, revision="3")) == {}
    whole = [_member(index, group=group) for group in "01" for index in (0, 1)]
    assert _targets(*whole) == {2: ["chat-r2-0-0", "chat-r2-1-0"]}
    assert _targets(*whole, POD) == {2: ["chat-r2-0-0", "chat-r2-1-0", "chat-r2-abc"]}


@pytest.mark.parametrize("size", ["3", "64"])
def test_a_group_is_as_large_as_its_pods_say(size):
    assert _targets(_member(0, size=size), _member(1, size=size)) == {}
    assert _targets(*(_member(index, size=size) for index in range(int(size)))) == {2: ["chat-r2-0-0"]}


def _starting(conditions, spec=None, **startup):
    told = [{"type": kind, "status": str(value)} for kind, value in conditions.items()]
    status = {"conditions": told, **({"startup": startup} if startup else {})}
    return objects.deployment(DEPLOYMENT | {"spec": DEPLOYMENT["spec"] | (spec or {}), "status": status}).start


@pytest.mark.parametrize(
    ("conditions", "spec", "possible", "proven"),
    [
        ({"Accepted": True, "Available": False, "Stalled": False}, {}, True, False),  # it starts
        ({"Accepted": True, "Available": True}, {"replicas": 1}, True, True),  # it sleeps
        ({"Accepted": False, "Available": True, "Stalled": True}, {}, True, True),  # ... and an edit of it is broken
        ({"Accepted": True, "Available": True}, {"replicas": 0}, False, True),  # a person has stopped it
        ({"Accepted": True, "Available": False, "Stalled": True}, {}, False, False),
        ({"Accepted": False, "Available": False}, {}, False, False),
        ({}, {}, False, False),  # the operator has not seen it
    ],
)
def test_what_could_start(conditions, spec, possible, proven):
    start = _starting(conditions, spec)
    assert (start.possible, start.proven) == (possible, proven)


def test_how_long_a_start_takes():
    found = _starting({}, estimatedReady="2026-11-22T08:00:10Z", seconds={"Scheduling": 1, "LoadingWeights": 39})
    assert (found.ready_at, found.seconds) == (1795334410, 40)
    assert _starting({}, phase="Scheduling") == Start()


def test_a_model_has_labels_and_knows_how_many_requests_a_replica_computes():
    labels = {"tier": "gold", "app": "chat"}
    spec = DEPLOYMENT["spec"] | {"engine": {"scheduling": {"maxRunning": 8}}}
    raw = DEPLOYMENT | {"metadata": DEPLOYMENT["metadata"] | {"labels": labels}, "spec": spec}
    model = objects.model(objects.deployment(raw), [])
    assert (model.labels, model.full_at) == ((("app", "chat"), ("tier", "gold")), 8)
    assert objects.model(objects.deployment(DEPLOYMENT), []).full_at == 64
