"""What may move is looked up once for each revision, before anything of it is made."""

import json

import pytest

from moorage_operator.plan.planner import plan

MOVABLE = {"source": "hf://org/model@main", "credentials": {"secretName": "hf-token"}}
PINNED = f"hf://org/model@{'c' * 40}"


def only_pod(decided):
    pods = [apply.manifest for apply in decided.applies if apply.manifest["kind"] == "Pod"]
    assert len(pods) == 1
    return pods[0]


def made(make, pod, status):
    return {**pod, "metadata": {**pod["metadata"], "creationTimestamp": "2026-01-01T11:00:00Z"}, "status": status}


def ended(said, code=0):
    state = {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed", "message": json.dumps(said)}}
    return {"containerStatuses": [{"name": "fetch", "restartCount": 0, "state": state}]}


@pytest.fixture
def asked(make):
    """A deployment with a movable source, and the pod that looks it up."""
    deployment = make.deployment(model=MOVABLE)
    return deployment, only_pod(plan(make.snapshot(deployment), make.context))


def test_before_it_is_known_only_the_pod_that_asks_is_made(make, asked, ready_condition):
    deployment, pod = asked
    decided = plan(make.snapshot(deployment), make.context)
    assert [apply.manifest["kind"] for apply in decided.applies] == ["Pod"]
    assert pod["metadata"]["name"] == "chat-r1-resolve"
    container = pod["spec"]["containers"][0]
    assert container["command"] == ["moorage-fetch", "resolve", "hf://org/model@main"]
    assert container["image"] == "moorage/runtime:1"
    assert {"name": "hf-token", "key": "token"} in [
        one["valueFrom"]["secretKeyRef"] for one in container["env"] if "valueFrom" in one
    ]
    assert "moorage.dev/rank" not in pod["metadata"]["labels"], "no gateway takes it for a replica"
    found = ready_condition(make.snapshot(deployment, made(make, pod, {})))
    assert (found["status"], found["reason"]) == ("False", "ResolvingSource")
    assert found["message"] == "Revision 1: hf://org/model@main is looked up."


def test_the_pod_is_made_once(make, asked):
    deployment, pod = asked
    decided = plan(make.snapshot(deployment, made(make, pod, {})), make.context)
    assert decided.applies == ()
    assert decided.deletes == ()


def test_the_answer_is_recorded_and_every_replica_gets_it(make, asked):
    deployment, pod = asked
    answered = made(make, pod, ended({"source": PINNED, "bytes": 60 * 10**9}))
    decided = plan(make.snapshot(deployment, answered), make.context)
    record, workload = decided.applies[0].manifest, decided.applies[1].manifest
    assert record["data"]["source"] == PINNED
    assert record["data"]["spec"]["model"]["source"] == "hf://org/model@main", "compared as it was written"
    spec = workload["spec"]["template"]["spec"]
    assert spec["initContainers"][0]["command"][1] == PINNED
    assert spec["containers"][0]["startupProbe"]["failureThreshold"] * 2 == 2600, "60 GB at 30 MB/s and ten minutes"
    assert decided.deletes == (), "the pod stays until its answer is recorded"
    assert decided.status is None or decided.status["revisions"][0]["source"] == PINNED

    born = {"creationTimestamp": "2026-01-01T11:00:00Z"}
    recorded = {**record, "metadata": {**record["metadata"], **born}}
    later = plan(make.snapshot(deployment, recorded, workload, answered), make.context)
    assert [delete.manifest["metadata"]["name"] for delete in later.deletes] == ["chat-r1-resolve"]
    assert "Pod" not in [apply.manifest["kind"] for apply in later.applies]
    assert plan(make.snapshot(deployment, recorded, workload), make.context).applies[0].manifest == record


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (ended({"error": "no such model", "reason": "ModelNotFound"}, 1), "ModelNotFound", "no such model"),
        (ended({"error": "it wants a token", "reason": "Unauthorized"}, 1), "Unauthorized", "it wants a token"),
        (ended({}), "FetchFailed", "ended without an answer"),
    ],
)
def test_why_it_cannot_be_looked_up_is_told(make, asked, status, reason, words):
    deployment, pod = asked
    decided = plan(make.snapshot(deployment, made(make, pod, status)), make.context)
    found = decided.status["conditions"][3]
    assert found["reason"] == reason
    assert words in found["message"]


def test_an_edit_meanwhile_asks_anew_under_another_number(make, asked):
    _, pod = asked
    edited = make.deployment(model={**MOVABLE, "source": "hf://org/model@v2"})
    decided = plan(make.snapshot(edited, made(make, pod, {})), make.context)
    assert only_pod(decided)["metadata"]["name"] == "chat-r2-resolve"
    assert [delete.manifest["metadata"]["name"] for delete in decided.deletes] == ["chat-r1-resolve"]


def test_while_it_is_looked_up_the_stable_revision_serves(make, ready_condition):
    serving = make.running(make.deployment(), make.ready())
    promoted = [apply.manifest for apply in plan(serving, make.context).applies]
    born = "2026-01-01T11:00:00Z"
    promoted = [{**one, "metadata": {**one["metadata"], "creationTimestamp": born}} for one in promoted]
    edited = make.snapshot(make.deployment(model=MOVABLE, generation=2), *promoted, make.ready())
    decided = plan(edited, make.context)
    assert only_pod(decided)["metadata"]["name"] == "chat-r2-resolve"
    assert decided.deletes == ()
    found = ready_condition(edited)
    assert found["reason"] == "ResolvingSource"
    assert found["message"].endswith("Revision 1 goes on serving with 1 replica.")


@pytest.mark.parametrize(
    ("source", "pinned"), [("python://llm", "python://llm==1.2"), ("pvc://models/x", "pvc://models/x")]
)
def test_replicas_get_the_files_that_were_there_when_the_revision_was_made(make, source, pinned):
    deployment = make.deployment(model={"source": source})
    pod = only_pod(plan(make.snapshot(deployment), make.context))
    digest = "sha256:" + "d" * 64
    answered = made(make, pod, ended({"source": pinned, "digest": digest, "bytes": 10**6}))
    record, workload = [apply.manifest for apply in plan(make.snapshot(deployment, answered), make.context).applies][:2]
    fetch = workload["spec"]["template"]["spec"]["initContainers"][0]["command"]
    assert fetch == ["moorage-fetch", pinned, "--into", "/model", "--digest", digest]
    assert (record["data"]["source"], record["data"]["digest"]) == (pinned, digest)
    recorded = {**record, "metadata": {**record["metadata"], "creationTimestamp": "2026-01-01T11:00:00Z"}}
    later = plan(make.snapshot(deployment, recorded, workload, make.on_node()), make.context)
    assert later.status["revisions"][0]["modelDigest"] == digest, "told before a replica has fetched anything"


def test_the_pod_that_looks_a_claim_up_mounts_it_where_replicas_do(make):
    spec = only_pod(plan(make.snapshot(make.deployment(model={"source": "pvc://models/x"})), make.context))["spec"]
    mounts = spec["containers"][0]["volumeMounts"]
    assert {"name": "source", "mountPath": "/sources/models", "readOnly": True} in mounts
    assert {one["name"] for one in mounts} == {one["name"] for one in spec["volumes"]} == {"tmp", "source"}


def test_a_pod_of_somebody_else_with_the_name_is_told(make, asked, ready_condition):
    deployment, pod = asked
    stranger = {"kind": "Pod", "metadata": {"name": pod["metadata"]["name"], "namespace": "team", "uid": "x"}}
    decided = plan(make.snapshot(deployment, stranger), make.context)
    assert (decided.applies, decided.deletes, decided.in_the_way) == ((), (), (stranger,))
    found = ready_condition(make.snapshot(deployment, stranger))
    assert found["reason"] == "WorkloadRefused"
    assert "Pod chat-r1-resolve exists and belongs to somebody else" in found["message"]


@pytest.mark.parametrize(
    "model",
    [
        {"source": PINNED},
        {"source": "hf://org/model@main", "digest": "sha256:" + "a" * 64},
        {"source": "pvc://models/x", "digest": "sha256:" + "a" * 64},
        {"source": "python://llm==1.0"},
    ],
)
def test_what_is_pinned_is_not_looked_up(make, model):
    decided = plan(make.snapshot(make.deployment(model=model)), make.context)
    assert [apply.manifest["kind"] for apply in decided.applies] == ["ControllerRevision", "Deployment", "Service"]


def test_the_pod_that_looks_a_claim_up_may_run_where_the_replicas_do(make):
    """The claim may be a disk of a node whose taint lets only those in that need its accelerators."""
    tolerated = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]

    def looked_up(source):
        gpu = {"count": 1, "products": ["NVIDIA-L4"]}
        return only_pod(plan(make.snapshot(make.deployment(model={"source": source}, accelerator=gpu)), make.context))[
            "spec"
        ]

    assert looked_up("pvc://models/x")["tolerations"] == tolerated
    assert "affinity" not in looked_up("pvc://models/x"), "the scheduler knows where the claim is"
    assert set(looked_up("pvc://models/x")["containers"][0]["resources"]["limits"]) == {"memory"}
    assert "tolerations" not in looked_up("hf://org/model@main"), "what is asked over the network is asked anywhere"


def test_one_that_finds_no_node_is_made_anew_once_it_may_run_elsewhere(make, asked):
    _, pod = asked
    toleration = {"key": "team", "operator": "Exists"}
    edited = make.deployment(model=MOVABLE, podTemplate={"spec": {"tolerations": [toleration]}})
    decided = plan(make.snapshot(edited, made(make, pod, {})), make.context)
    assert only_pod(decided)["spec"]["tolerations"] == [toleration]
    assert [delete.manifest["metadata"]["name"] for delete in decided.deletes] == ["chat-r1-resolve"]
