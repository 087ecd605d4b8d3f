"""A replica of several ranks: what the pods that compute it need beside what every pod has.

Ranks in one pod find each other by themselves. Over several pods each is told its place by the variables that
LeaderWorkerSet sets, which here come from the labels of the StatefulSet's pods; so one template serves all groups.
Source: https://lws.sigs.k8s.io/docs/reference/labels-annotations-and-environment-variables/
"""

from typing import Any, Final

from moorage_api import names
from moorage_api.llmdeployment import Spec
from moorage_operator.manifest import Manifest, dig
from moorage_operator.render.context import Owner

MEETING_BUDGET: Final = 900
"""Seconds more that a start may take while the pods of a replica wait for one another: longer than ranks themselves
wait, so that they say who is missing before the kubelet ends them."""
SHARED_MEMORY: Final = "1Gi"
"""Through which accelerators of one pod exchange numbers; container runtimes give 64 MiB, which is too little."""
_SHARED_MEMORY_PATH: Final = "/dev/shm"  # noqa: S108 - the pod's own


def flags(spec: Spec) -> list[str]:
    """What the server is told. How many pods there are, and which one this is, it finds in its environment."""
    ranks = spec.sharding.tensor_parallel
    return ["--tensor-parallel", str(ranks)] if ranks > 1 else []


def labels(spec: Spec) -> dict[str, str]:
    """Of the pods: that requests go to them, or of how many each is one. Which group's they are, its workload says."""
    pods = spec.sharding.pods
    return {names.GROUP_SIZE_LABEL: str(pods)} if pods > 1 else {names.RANK_LABEL: "0"}


def environment(owner: Owner, number: int, spec: Spec) -> list[dict[str, Any]]:
    """The place of a pod in its group, under LeaderWorkerSet's names."""
    if spec.sharding.pods == 1:
        return []
    leader = f"{owner.revision_name(number)}-$(MOORAGE_GROUP)-0.{owner.ranks_name}.{owner.namespace}.svc"
    return [
        _from_label("MOORAGE_GROUP", names.GROUP_LABEL),
        {"name": "LWS_GROUP_SIZE", "value": str(spec.sharding.pods)},
        _from_label("LWS_WORKER_INDEX", names.POD_INDEX_LABEL),
        {"name": "LWS_LEADER_ADDRESS", "value": leader},
    ]


def _from_label(name: str, label: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{label}']"}}}


def volumes(spec: Spec) -> list[dict[str, Any]]:
    """Shared memory for the accelerators of one pod."""
    if not _shares_memory(spec):
        return []
    return [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": SHARED_MEMORY}}]


def mounts(spec: Spec) -> list[dict[str, Any]]:
    """Where the server finds it."""
    return [{"name": "shm", "mountPath": _SHARED_MEMORY_PATH}] if _shares_memory(spec) else []


def _shares_memory(spec: Spec) -> bool:
    return spec.accelerator is not None and spec.sharding.tensor_parallel > spec.sharding.pods


def pods_of(template: Manifest) -> int:
    """How many pods of this template are one replica."""
    size = str(dig(template, "metadata", "labels", names.GROUP_SIZE_LABEL, default="1"))
    return int(size) if size.isdecimal() else 1


def leader_labels(template: Manifest) -> dict[str, str]:
    """What the pods that requests go to have, of those of this template."""
    return {names.POD_INDEX_LABEL: "0"} if pods_of(template) > 1 else {names.RANK_LABEL: "0"}


def ranks_service(owner: Owner) -> dict[str, Any]:
    """The headless Service by which ranks in several pods find rank 0, before its pod is ready: they make it ready."""
    port = {"name": "ranks", "port": names.RANKS_PORT, "targetPort": names.RANKS_PORT, "protocol": "TCP"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": owner.metadata(owner.ranks_name, owner.labels()),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": owner.labels(),
            "ports": [port],
        },
    }


def ranks_policy(owner: Owner) -> dict[str, Any]:
    """Who reaches the pods of groups: their like on all ports, since ranks open some of their own; everybody on one.

    Ranks have no secret among each other, so whoever reached the others could join them. The one port is that of
    requests, which every other replica has open as well.
    """
    ranks = {
        "matchLabels": owner.labels(),
        "matchExpressions": [{"key": names.GROUP_LABEL, "operator": "Exists"}],
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": owner.metadata(owner.ranks_name, owner.labels()),
        "spec": {
            "podSelector": ranks,
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [{"podSelector": ranks}]},
                {"ports": [{"port": names.HTTP_PORT, "protocol": "TCP"}]},
            ],
        },
    }
