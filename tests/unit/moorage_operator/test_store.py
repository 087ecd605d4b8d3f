"""What the operator knows: late, repeated and missed events do no harm."""

import json

import pytest

from moorage_operator.cluster.compare import includes
from moorage_operator.cluster.sharing import Sharing
from moorage_operator.cluster.store import Store
from moorage_operator.manifest import Key

CHAT = Key("team", "chat")


def child(version, kind="Deployment", name="chat-r1", uid="u1", **more):
    labels = {"moorage.dev/deployment": "chat"}
    metadata = {"name": name, "namespace": "team", "uid": uid, "resourceVersion": str(version), "labels": labels}
    return {"kind": kind, "metadata": {**metadata, "managedFields": ["…"]}, **more}


@pytest.fixture
def store():
    return Store()


def version(store):
    found = store.get("Deployment", "team", "chat-r1")
    return None if found is None else int(found["metadata"]["resourceVersion"])


def test_an_older_version_never_replaces_a_newer_one(store):
    assert store.put(child(10))
    assert not store.put(child(9))
    assert not store.put(child(10)), "what we wrote ourselves is no news when the watch brings it"
    assert store.put(child(11, spec={"replicas": 2}))
    assert version(store) == 11


def test_versions_are_numbers(store):
    store.put(child(99))
    store.put(child(100))
    assert version(store) == 100


def test_what_no_decision_reads_is_taken_in_and_is_no_news(store):
    progressing = {"type": "Progressing", "status": "True", "reason": "NewReplicaSetCreated"}
    refused = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}
    store.put(child(1, spec={"replicas": 1}))
    assert not store.put(child(2, spec={"replicas": 1}, status={"replicas": 1, "conditions": [progressing]}))
    assert version(store) == 2, "deletes name the version that was seen"
    numbered = child(3, spec={"replicas": 1}, status={"conditions": [progressing]})
    numbered["metadata"]["annotations"] = {"deployment.kubernetes.io/revision": "1"}
    assert not store.put(numbered)
    assert store.put(child(4, spec={"replicas": 1}, status={"conditions": [progressing, refused]}))
    assert store.put(child(5, spec={"replicas": 2}, status={"conditions": [refused]}))
    assert store.get("Deployment", "team", "chat-r1")["status"] == {"conditions": [refused]}


@pytest.mark.parametrize("kind", ["Pod", "LLMDeployment", "ControllerRevision"])
def test_any_other_change_is_news(store, kind):
    store.put(child(1, kind=kind))
    assert store.put(child(2, kind=kind, status={"phase": "Running"}))
    assert store.put(child(3, kind=kind, status={"phase": "Failed"}))
    deleting = child(4, kind=kind, status={"phase": "Failed"})
    deleting["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert store.put(deleting)


def test_a_late_end_of_an_earlier_object_does_not_end_the_later_one(store):
    store.put(child(20, uid="u2"))
    store.remove(child(15, uid="u1"))
    assert version(store) == 20


def test_late_events_do_not_bring_back_what_we_deleted(store):
    store.put(child(10))
    store.removed(child(10))
    assert not store.put(child(11))
    assert version(store) is None
    store.remove(child(12))
    assert store.put(child(13, uid="u2"))


def test_a_list_brings_what_was_missed_and_takes_what_is_gone(store):
    store.put(child(5, name="gone", uid="u2"))
    store.put(child(30, name="written-after-the-list", uid="u3"))
    store.put(child(6, kind="Service", name="chat"))
    gone = store.merge("Deployment", [child(10)], version=20)
    assert [one["metadata"]["name"] for one in gone] == ["gone"]
    names = {one["metadata"]["name"] for one in store.children(CHAT)["Deployment"]}
    assert names == {"chat-r1", "written-after-the-list"}
    assert store.children(CHAT)["Service"]


def test_a_list_takes_what_is_gone_though_another_one_of_that_name_came_and_went_since(store):
    store.remove(child(6, uid="u2"))
    store.merge("Deployment", [child(3, uid="u1")], version=4)
    gone = store.merge("Deployment", [child(5, uid="u2")], version=5)
    assert [one["metadata"]["uid"] for one in gone] == ["u1"]
    assert version(store) is None


def test_a_watch_that_begins_in_the_past_brings_nothing_back(store):
    """As when its list comes from an API server that lags behind."""
    store.put(child(10))
    store.merge("Deployment", [], version=20)
    assert not store.heard(child(10)), "it was not there at version 20"
    assert store.heard(child(21, uid="u2"))
    store.remove(child(30, uid="u2"))
    assert not store.heard(child(25, uid="u2")), "it went at version 30"
    assert store.heard(child(31, uid="u3"))


def test_a_list_that_is_older_than_the_last_one_says_nothing(store):
    store.merge("Deployment", [], version=20)
    store.merge("Deployment", [child(10)], version=15)
    assert version(store) is None
    store.put(child(14, kind="Service"))
    store.merge("Service", [], version=15)
    assert store.children(CHAT)["Service"] == (), "each kind has lists of its own"


def test_an_object_that_lost_our_label_can_come_back(store):
    """For a watch that selects by labels it is deleted then."""
    store.put(child(10))
    store.remove(child(11))
    assert store.put(child(11)), "looked up"
    store.remove(child(12))
    assert store.heard(child(13)), "labelled again"


def test_what_went_is_forgotten_once_no_list_can_show_it_any_more(store):
    store.put(child(10))
    store.removed(child(10))
    store.merge("Deployment", [child(10)], version=10)
    assert version(store) is None, "the list was made before it went"
    assert store._graves["Deployment"]
    store.merge("Deployment", [], version=20)
    assert not store._graves["Deployment"]


def test_children_belong_to_the_deployment_that_their_label_names(store):
    store.put(child(1))
    store.put(child(2, kind="Pod", name="p"))
    assert [kind for kind, found in store.children(CHAT).items() if found] == ["Deployment", "Pod"]
    assert store.deployments() == {CHAT}
    store.remove(child(3))
    store.remove(child(3, kind="Pod", name="p"))
    assert store.deployments() == set()
    assert len(store) == 0


def test_memory_holds_no_managed_fields_and_no_pod_specs(store):
    store.put(child(1, kind="Pod", name="p", spec={"containers": []}, status={"phase": "Running"}))
    pod = store.get("Pod", "team", "p")
    assert "managedFields" not in pod["metadata"]
    assert "spec" not in pod
    assert pod["status"] == {"phase": "Running"}


def test_of_a_pods_status_only_what_is_decided_by_is_kept_and_news(store):
    def conditions(*ready):
        return [{"type": kind, "status": str(kind in ready)} for kind in ("PodScheduled", "Initialized", "Ready")]

    def told(version, **status):
        return child(version, kind="Pod", name="p", status=status)

    server = {"name": "server", "ready": False, "started": False, "restartCount": 0, "state": {"waiting": {}}}
    assert store.put(told(1, phase="Pending", conditions=conditions("PodScheduled"), containerStatuses=[server]))
    on_its_way = {
        "podIP": "10.0.0.1",
        "startTime": "2026-01-01T00:00:00Z",
        "containerStatuses": [{**server, "imageID": "x"}],
    }
    assert not store.put(told(2, phase="Pending", conditions=conditions("PodScheduled", "Initialized"), **on_its_way))
    kept = store.get("Pod", "team", "p")["status"]
    assert [one["type"] for one in kept["conditions"]] == ["PodScheduled", "Ready"]
    assert set(kept) == {"phase", "conditions", "containerStatuses"}
    assert kept["containerStatuses"] == [{name: server[name] for name in ("name", "restartCount", "started", "state")}]
    assert store.put(told(3, phase="Running", conditions=conditions("PodScheduled", "Ready")))


def test_what_stays_the_same_is_in_memory_once(store):
    """Whoever parsed a version: kopf's objects take more memory than those of our own requests."""
    store.put(child(1, spec={"replicas": 1, "template": {"a": ["b"]}}))
    first = store.get("Deployment", "team", "chat-r1")
    store.put(child(2, spec={"replicas": 1, "template": {"a": ["b"]}}))
    second = store.get("Deployment", "team", "chat-r1")
    assert (version(store), second["spec"]) == (2, first["spec"])
    assert second["spec"] is first["spec"]
    assert second["metadata"]["labels"] is first["metadata"]["labels"]
    assert first["metadata"]["resourceVersion"] == "1"


def test_what_objects_say_in_the_same_words_is_in_memory_once(store):
    for name in ("chat-r1", "chat-r2"):
        spec = {"image": "moorage/runtime:1", "args": ["--max-running", 64]}
        store.put(json.loads(json.dumps(child(1, name=name, uid=name, spec=spec))))
    first, second = (store.get("Deployment", "team", name)["spec"] for name in ("chat-r1", "chat-r2"))
    assert first == second == {"image": "moorage/runtime:1", "args": ["--max-running", 64]}
    assert first["image"] is second["image"]
    assert first["args"][0] is second["args"][0]
    assert first["args"] is not second["args"], "of an object nothing changes with another one"
    assert {id(name) for name in first} == {id(name) for name in second}


def test_a_list_holds_what_is_known_already_a_second_time_only_where_it_changed(store):
    for name in ("chat-r1", "chat-r2"):
        store.put(child(1, name=name, uid=name, spec={"replicas": 1}))
    listed = [child(1, name="chat-r1", uid="chat-r1", spec={"replicas": 1}), child(2, name="chat-r2", uid="chat-r2")]
    same, changed = (store.slim(one) for one in listed)
    assert same is store.get("Deployment", "team", "chat-r1")
    assert "spec" not in changed
    store.merge("Deployment", [same, changed], version=3)
    assert store.get("Deployment", "team", "chat-r1") is same
    assert store.get("Deployment", "team", "chat-r2")["metadata"]["resourceVersion"] == "2"


def test_words_of_single_objects_do_not_pile_up():
    sharing = Sharing()
    documents = [json.loads(f'{{"uid": "{number}", "ready": true, "restarts": null}}') for number in range(20_000)]
    assert [sharing.of(one) for one in documents] == documents
    assert len(sharing) < len(documents) / 2


def test_an_object_of_somebody_else_is_seen_by_the_deployment_that_needs_its_name(store):
    foreign = {"kind": "Service", "metadata": {"name": "chat", "namespace": "team", "uid": "x", "resourceVersion": "4"}}
    store.put_foreign(CHAT, foreign)
    assert store.children(CHAT)["Service"] == (foreign,)


def test_an_object_that_a_watch_brought_under_its_own_label_can_turn_out_to_be_in_the_way(store):
    labels = {"moorage.dev/deployment": "other"}
    metadata = {"name": "chat", "namespace": "team", "uid": "x", "resourceVersion": "4", "labels": labels}
    foreign = {"kind": "Service", "metadata": metadata}
    store.put(foreign)
    store.put_foreign(CHAT, foreign)
    assert store.children(Key("team", "other"))["Service"] == ()
    assert store.children(CHAT)["Service"] == (foreign,)
    store.remove({"kind": "Service", "metadata": {**metadata, "resourceVersion": "5"}})
    assert store.deployments() == set()


@pytest.mark.parametrize(
    ("live", "wanted"),
    [
        ({"a": 1, "defaulted": 2}, {"a": 1}),
        ({"requests": {"cpu": "1"}}, {"requests": {"cpu": "1000m"}}),
        ({"emptyDir": {"sizeLimit": "1Gi"}}, {"emptyDir": {"sizeLimit": "1024Mi"}}),
        ({"env": [{"name": "A"}]}, {"env": [{"name": "A", "value": ""}]}),
        ({"containers": [{"name": "injected"}, {"name": "b", "x": 1}]}, {"containers": [{"name": "b"}]}),
        ({}, {"annotations": {}, "list": []}),
    ],
)
def test_what_the_api_server_adds_or_rewrites_is_no_difference(live, wanted):
    assert includes(live, wanted)


@pytest.mark.parametrize(
    ("live", "wanted"),
    [
        ({}, {"a": 1}),
        ({"a": 2}, {"a": 1}),
        ({"a": "1000m"}, {"a": "1"}),
        ({"replicas": 3}, {"replicas": 0}),
        ({}, {"replicas": 0}),
        ({"requests": {"cpu": "2"}}, {"requests": {"cpu": "1000m"}}),
        ({"selector": {"a": "1", "added": "x"}}, {"selector": {"a": "1"}}),
        ({"command": ["a", "b"]}, {"command": ["a"]}),
        ({"containers": []}, {"containers": [{"name": "b"}]}),
        ({"a": "text"}, {"a": {"b": 1}}),
        ({"a": {"b": 1}}, {"a": [1]}),
    ],
)
def test_a_real_difference_is_one(live, wanted):
    assert not includes(live, wanted)


def autoscaler(version, current="1", wanted=1, able="ReadyForNewScale"):
    conditions = [
        {"type": "AbleToScale", "status": "True", "reason": able},
        {"type": "ScalingActive", "status": "True", "reason": "ValidMetricFound"},
    ]
    figure = {"type": "Object", "object": {"current": {"averageValue": current}}}
    status = {"desiredReplicas": wanted, "currentMetrics": [figure], "conditions": conditions, "lastScaleTime": current}
    made = child(version, kind="HorizontalPodAutoscaler", name="chat", status=status)
    judge = {"manager": "k3s", "operation": "Update", "subresource": "status", "time": current}
    made["metadata"]["managedFields"] = [judge, {"manager": "moorage-operator", "operation": "Apply"}]
    return made


def test_the_figures_of_an_autoscaler_are_known_and_no_news_and_its_judgement_is(store):
    store.put(autoscaler(1))
    assert not store.put(autoscaler(2, current="7", able="SucceededRescale"))
    found = store.get("HorizontalPodAutoscaler", "team", "chat")
    assert found["metadata"]["managedFields"] == [{"manager": "k3s", "subresource": "status"}]
    kept = found["status"]
    assert kept["currentMetrics"][0]["object"]["current"] == {"averageValue": "7"}
    assert [one["type"] for one in kept["conditions"]] == ["ScalingActive"]
    assert store.put(autoscaler(3, wanted=2))


def test_who_writes_replicas_is_kept_and_who_writes_the_rest_is_not(store):
    person = {"manager": "kubectl", "operation": "Apply", "time": "t", "fieldsV1": {"f:spec": {"f:model": {}}}}
    scaler = {"manager": "hpa", "operation": "Update", "subresource": "scale", "time": "t"}
    scaler["fieldsV1"] = {"f:spec": {"f:replicas": {}}}
    metadata = {"name": "chat", "namespace": "team", "uid": "u2", "resourceVersion": "1"}
    written = {"kind": "LLMDeployment", "metadata": {**metadata, "managedFields": [person, scaler]}}
    store.put(written)
    kept = store.get("LLMDeployment", "team", "chat")
    expected = [{"manager": "hpa", "operation": "Update", "subresource": "scale", "time": "t"}]
    assert kept["metadata"]["managedFields"] == expected
    again = {**kept, "metadata": {**kept["metadata"], "resourceVersion": "2"}}
    assert not store.put(again), "what was made slim once stays as it is"
    assert store.get("LLMDeployment", "team", "chat")["metadata"]["managedFields"] == expected
