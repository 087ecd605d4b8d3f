"""What a person reads in one line, for everything that can be the matter."""

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from moorage_operator.plan.nodes import Node, Nodes
from moorage_operator.plan.planner import plan

PULL = "failed to pull image: not found"


def waiting(reason, message=""):
    return {"state": {"waiting": {"reason": reason, "message": message}}}


@pytest.mark.parametrize(
    ("status", "reason", "message"),
    [
        ({}, "Scheduling", "0 of 1 replicas answer requests. Pods wait for a node."),
        (
            {
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes."}
                ]
            },
            "Unschedulable",
            "0/3 nodes. No node has room for spec.resources. Lower the requests, free memory or CPU, or add nodes;",
        ),
        (
            {
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": 'persistentvolumeclaim "models" not found.',
                    }
                ]
            },
            "ModelNotFound",
            'persistentvolumeclaim "models" not found. spec.model.source names nothing that exists.',
        ),
    ],
)
def test_a_pod_without_a_node(make, ready_condition, status, reason, message):
    found = ready_condition(make.running(make.deployment(), make.pod(**status)))
    assert (found["status"], found["reason"]) == ("False", reason)
    assert found["message"].startswith(message)


@pytest.mark.parametrize(
    ("fetch", "server", "reason"),
    [
        ({"state": {"running": {}}}, {}, "FetchingModel"),
        ({}, {"state": {"running": {}}, "started": False}, "LoadingWeights"),
        ({}, {"state": {"running": {}}, "started": True}, "WarmingUp"),
        ({}, {"state": {"running": {}}, "started": False, "restartCount": 2}, "LoadingWeights"),
    ],
)
def test_how_far_a_start_has_come(make, ready_condition, fetch, server, reason):
    found = ready_condition(make.running(make.deployment(), make.on_node(fetch=fetch, server=server)))
    assert found["reason"] == reason
    assert found["message"].startswith("0 of 1 replicas answer requests. ")


@pytest.mark.parametrize(
    ("reason", "message", "said"),
    [
        ("ErrImagePull", PULL, PULL),
        ("ImagePullBackOff", f'Back-off pulling image "x:1": ErrImagePull: {PULL}', PULL),
        ("InvalidImageName", "", "InvalidImageName"),
        ("ErrImagePull", "failed to pull:\n  not found\n", "failed to pull: not found"),
    ],
)
def test_an_image_that_cannot_be_pulled(make, ready_condition, reason, message, said):
    found = ready_condition(make.running(make.deployment(), make.on_node(fetch=waiting(reason, message))))
    assert found["reason"] == "ImagePullFailed"
    assert found["message"] == (
        f"{said}. The engine's image cannot be pulled. Check spec.engine.image for a typo and that the nodes may pull "
        "from its registry."
    )


def test_a_missing_secret(make, ready_condition):
    pod = make.on_node(fetch=waiting("CreateContainerConfigError", 'secret "hf-token" not found'))
    found = ready_condition(make.running(make.deployment(), pod))
    assert found["reason"] == "SecretNotFound"
    assert found["message"].startswith('secret "hf-token" not found. The Secret that ')


@pytest.mark.parametrize("reason", ["ModelNotFound", "DigestMismatch", "InvalidSource", "Unauthorized", "FetchFailed"])
def test_what_the_fetch_container_says(make, ready_condition, reason):
    ended = make.ended({"error": "no such model org/model", "reason": reason})
    found = ready_condition(make.running(make.deployment(), make.on_node(fetch=ended)))
    assert found["reason"] == reason
    assert found["message"].startswith("no such model org/model. ")


@pytest.mark.parametrize("tries", [1, 5])
def test_a_fetch_that_failed_at_first_and_then_came_through_is_no_trouble_any_more(make, ready_condition, tries):
    failed = {"terminated": {"exitCode": 1, "reason": "Error", "message": "connection reset"}}
    fetched = {"terminated": {"exitCode": 0, "message": json.dumps({"digest": "sha256:0"})}}
    fetch = {"restartCount": tries, "state": fetched, "lastState": failed}
    pod = make.on_node(fetch=fetch, server={"state": {"running": {}}, "started": False})
    snapshot = make.running(make.deployment(), pod)
    assert ready_condition(snapshot)["reason"] == "LoadingWeights"
    assert plan(snapshot, make.context).status["revisions"][0]["modelDigest"] == "sha256:0"


@pytest.mark.parametrize("reason", ["InsufficientMemory", "UnsupportedModel", "EngineFailed"])
def test_what_the_server_says(make, ready_condition, reason):
    ended = make.ended({"error": "weights need 270 MiB, 100 MiB are free", "reason": reason})
    found = ready_condition(make.running(make.deployment(), make.on_node(server=ended)))
    assert found["reason"] == reason
    assert found["message"].startswith("weights need 270 MiB, 100 MiB are free. ")


@pytest.mark.parametrize(
    ("container", "ended", "reason", "message"),
    [
        (
            "server",
            ("", 137, "OOMKilled"),
            "OutOfMemory",
            "Container server was killed at its memory limit. The kernel",
        ),
        ("fetch", ("", 137, "OOMKilled"), "OutOfMemory", "Container fetch was killed at its memory limit. The kernel"),
        ("server", ("", 3, "Error"), "EngineFailed", "exit code 3. The engine ended on an error."),
        ("server", ("Traceback\n  ValueError: x", 1, "Error"), "EngineFailed", "Traceback ValueError: x. The engine"),
        ("fetch", ('["not", "an object"]', 1, "Error"), "FetchFailed", '["not", "an object"]. The model could not'),
        ("fetch", ({"reason": "Invented", "error": "e"}, 1, "Error"), "FetchFailed", "e. The model could not"),
    ],
)
def test_a_container_that_ends_otherwise(make, container, ended, reason, message):
    snapshot = make.running(make.deployment(), make.on_node(**{container: make.ended(*ended)}))
    found = plan(snapshot, make.context).status["conditions"][3]
    assert found["reason"] == reason
    assert found["message"].startswith(message)


def test_of_long_last_words_the_end_is_told(make, ready_condition):
    ended = make.ended("noise " * 1000 + "RuntimeError: the point")
    found = ready_condition(make.running(make.deployment(), make.on_node(server=ended)))
    assert "RuntimeError: the point. The engine ended" in found["message"]
    assert len(found["message"]) < 700


@pytest.mark.parametrize(
    "words", ["0/2 nodes are available: 2 Insufficient nvidia.com/gpu.", "didn't match Pod's node affinity/selector"]
)
def test_a_pod_that_finds_no_accelerator_waits_for_a_gpu(make, ready_condition, words):
    unscheduled = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words}]
    wanted = make.deployment(accelerator={"resource": "nvidia.com/gpu", "count": 1})
    found = ready_condition(make.running(wanted, make.pod(conditions=unscheduled)))
    assert found["reason"] == "WaitingForGPU"
    assert found["message"].startswith(words.rstrip("."))


def test_who_waits_for_a_gpu_reads_which_node_has_how_many(make, ready_condition):
    words = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    unscheduled = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words}]
    wanted = make.deployment(accelerator={"resource": "nvidia.com/gpu", "count": 2})
    free = Node("node-3", {}, (), {"nvidia.com/gpu": Decimal(4)}, {"nvidia.com/gpu": Decimal(1)})
    snapshot = replace(make.running(wanted, make.pod(conditions=unscheduled)), nodes=Nodes((free,)))
    message = ready_condition(snapshot)["message"]
    assert message.startswith(f"Needs 2 x nvidia.com/gpu on one node; node-3 has 1 of 4 free. {words} No node has")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ('pods "p" is forbidden: exceeded quota: q, requested: pods=1', "QuotaExceeded"),
        ('pods "p" is forbidden: status unknown for quota: q, resources: pods', "QuotaExceeded"),
        ('pods "p" is forbidden: violates PodSecurity "restricted:latest"', "WorkloadRefused"),
    ],
)
def test_pods_that_the_api_server_refuses(make, ready_condition, words, reason):
    snapshot = make.running(make.deployment())
    workload = snapshot.children["Deployment"][0]
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": words}
    refused = {**workload, "status": {"conditions": [condition]}}
    found = ready_condition(replace(snapshot, children={**snapshot.children, "Deployment": (refused,)}))
    assert found["reason"] == reason
    assert found["message"].startswith(f"{words}. ")


def test_serving_and_its_conditions(make):
    snapshot = make.running(make.deployment(replicas=2, generation=4), make.ready(name="a"), make.ready(name="b"))
    status = plan(snapshot, make.context).status
    told = {one["type"]: (one["status"], one["reason"], one["message"]) for one in status["conditions"]}
    assert told == {
        "Accepted": ("True", "Valid", "spec was understood."),
        "Available": ("True", "Serving", "2 replicas answer requests."),
        "Progressing": ("False", "Serving", "2 of 2 replicas answer requests."),
        "Ready": ("True", "Serving", "2 of 2 replicas answer requests."),
        "Stalled": ("False", "Serving", "2 of 2 replicas answer requests."),
    }
    assert {one["observedGeneration"] for one in status["conditions"]} == {4}
    assert status["ready"] == "2/2"
    assert status["url"] == "http://gateway/v1"


def test_what_is_accepted_and_of_no_use_is_said(make):
    decided = plan(make.running(make.deployment(accelerator={"count": 8}), make.ready()), make.context)
    accepted = next(one for one in decided.status["conditions"] if one["type"] == "Accepted")
    assert accepted["status"] == "True"
    assert accepted["message"].startswith("7 of the 8 accelerators of a replica do nothing, since its one rank")


def test_at_zero_it_says_how_to_wake_it(make, ready_condition):
    found = ready_condition(make.running(make.deployment(replicas=0)))
    assert (found["status"], found["reason"]) == ("True", "ScaledToZero")
    assert found["message"].endswith("To serve again: kubectl scale llmdep/chat --replicas=1.")


def test_a_spec_that_cannot_be_used_leaves_the_last_good_revision_serving(make):
    good = make.running(make.deployment(), make.ready())
    bad = make.deployment(model={"source": "ftp://nowhere"}, generation=2)
    decided = plan(replace(good, deployment=bad), make.context)
    told = {one["type"]: (one["status"], one["reason"]) for one in decided.status["conditions"]}
    assert told["Accepted"] == told["Ready"] == ("False", "InvalidSpec")
    assert told["Available"] == ("True", "Serving")
    ready = decided.status["conditions"][3]["message"]
    assert ready.startswith("spec.model.source: unknown kind of source; write one of: hf://")
    assert [delete.manifest["kind"] for delete in decided.deletes] == []


def test_a_spec_that_never_could_be_used_makes_nothing(make):
    decided = plan(make.snapshot(make.deployment(model={})), make.context)
    assert decided.applies == ()
    assert decided.status["conditions"][0]["message"] == "spec.model.source: Field required"


def test_fields_of_a_newer_version_are_named(make):
    decided = plan(make.running(make.deployment(access={"visibility": "Key"}), make.ready()), make.context)
    accepted = decided.status["conditions"][0]
    assert accepted["status"] == "True"
    assert accepted["message"] == "This version of the operator does not know spec.access; ignored."


def test_a_refused_write_is_told_in_the_servers_words(make, ready_condition):
    snapshot = replace(make.running(make.deployment()), refused="admission webhook says no")
    found = ready_condition(snapshot)
    assert found["reason"] == "WorkloadRefused"
    assert found["message"].startswith("admission webhook says no. The API server refuses")


def test_a_transition_time_changes_with_the_status_only(make):
    pending = make.running(make.deployment(), make.pod())
    first = plan(pending, make.context).status
    later = make.now + timedelta(minutes=5)
    again = replace(make.running(make.deployment(status=first), make.pod()), now=later)
    assert plan(again, make.context).status == first
    ready = replace(make.running(make.deployment(status=first), make.ready()), now=later)
    times = {one["type"]: one["lastTransitionTime"] for one in plan(ready, make.context).status["conditions"]}
    assert times["Accepted"] == "2026-01-01T12:00:00Z"
    assert times["Ready"] == "2026-01-01T12:05:00Z"


def test_a_trouble_is_an_event_once(make):
    broken = make.on_node(server=make.ended("", 137, "OOMKilled"))
    decided = plan(make.running(make.deployment(), broken), make.context)
    assert [(event.kind, event.reason) for event in decided.events] == [("Warning", "OutOfMemory")]
    again = plan(make.running(make.deployment(status=decided.status), broken), make.context)
    assert again.events == ()
