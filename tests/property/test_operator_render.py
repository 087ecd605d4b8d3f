"""What holds of every manifest, whatever a valid spec says."""

import copy
import json
from collections import Counter
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from moorage_api.llmdeployment import LLMDeployment
from moorage_operator.plan.planner import plan
from moorage_operator.plan.snapshot import Snapshot
from moorage_operator.render.context import Context

CONTEXT = Context("moorage/runtime:1", "http://gateway/v1")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
PINNED = f"hf://org/model@{'c' * 40}"
NAMES = st.from_regex(r"\A[a-z]([-a-z0-9]{0,38}[a-z0-9])?\Z")
VARIABLES = st.from_regex(r"\A[A-F_]{1,9}\Z")
ENVIRONMENT = st.dictionaries(VARIABLES, st.text(max_size=9), max_size=5).map(
    lambda found: [{"name": name, "value": value} for name, value in found.items()]
)
AMOUNTS = st.fixed_dictionaries(
    {},
    optional={
        "cpu": st.integers(1, 9),
        "memory": st.sampled_from(["512Mi", "4Gi"]),
        "ephemeral-storage": st.just("9Gi"),
    },
)
SPECS = st.fixed_dictionaries(
    {
        "model": st.fixed_dictionaries(
            {
                "source": st.sampled_from(
                    [PINNED, "pvc://claim.of-ours/path", "python://package==1.0", "python://package"]
                )
            },
            optional={
                "servedName": st.just("Public-1.0"),
                "contextLength": st.integers(1, 2**31 - 1),
                "quantization": st.sampled_from(["None", "Int8", "Int4"]),
                "credentials": st.just({"secretName": "hf-token"}),
            },
        ),
        "replicas": st.integers(0, 9),
    },
    optional={
        "engine": st.fixed_dictionaries({"env": ENVIRONMENT}, optional={"image": st.just("a/b:c")}),
        "accelerator": st.fixed_dictionaries({"count": st.integers(1, 8)}, optional={"minMemory": st.just("40Gi")}),
        "resources": st.fixed_dictionaries({}, optional={"requests": AMOUNTS, "limits": AMOUNTS}),
    },
)


@given(NAMES, SPECS)
def test_every_plan_is_pure_and_every_manifest_is_sound(name, spec):
    metadata = {"name": name, "namespace": "team", "uid": "u1", "generation": 1}
    deployment = {"apiVersion": "moorage.dev/v1alpha1", "kind": "LLMDeployment", "metadata": metadata, "spec": spec}
    LLMDeployment.model_validate(deployment)
    untouched = copy.deepcopy(deployment)

    first = plan(Snapshot(deployment, {}, NOW), CONTEXT)
    assert plan(Snapshot(copy.deepcopy(deployment), {}, NOW), CONTEXT) == first
    assert deployment == untouched

    manifests = [apply.manifest for apply in first.applies]
    assert all(apply.reason for apply in first.applies)
    for manifest in manifests:
        assert len(manifest["metadata"]["name"]) <= 63
        assert manifest["metadata"]["ownerReferences"][0]["uid"] == "u1"
        assert manifest["metadata"]["ownerReferences"][0]["blockOwnerDeletion"] is True
    addresses = Counter((manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests)
    assert set(addresses.values()) == {1}
    if [manifest["kind"] for manifest in manifests] == ["Pod"]:
        _check_containers(manifests[0]["spec"])
        answered = Snapshot(deployment, {"Pod": (_answered(manifests[0], spec["model"]["source"]),)}, NOW)
        manifests = [apply.manifest for apply in plan(answered, CONTEXT).applies]
    _check_pods(manifests, replicas=spec["replicas"])


def _answered(pod, source):
    said = json.dumps({"source": source, "digest": "sha256:" + "d" * 64, "bytes": 10})
    state = {"terminated": {"exitCode": 0, "message": said}}
    return {**pod, "status": {"containerStatuses": [{"name": "fetch", "restartCount": 0, "state": state}]}}


def _check_pods(manifests, replicas):
    by_kind = {manifest["kind"]: manifest for manifest in manifests}
    assert ("Deployment" in by_kind) == (replicas > 0)
    assert ("PodDisruptionBudget" in by_kind) == (replicas > 1)
    if not replicas:
        return
    workload = by_kind["Deployment"]["spec"]
    labels = workload["template"]["metadata"]["labels"].items()
    assert workload["selector"]["matchLabels"].items() <= labels
    assert by_kind["Service"]["spec"]["selector"].items() <= labels
    assert workload["template"] == by_kind["ControllerRevision"]["data"]["template"]
    _check_containers(workload["template"]["spec"])


def _check_containers(pod):
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        variables = [variable["name"] for variable in container["env"]]
        assert len(variables) == len(set(variables))
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        secrets = [variable for variable in container["env"] if "valueFrom" in variable]
        assert not secrets or container["name"] == "fetch"
