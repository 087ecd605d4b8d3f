"""What is kept of an object in memory."""

from typing import Any, Final

from moorage_api import names
from moorage_operator.manifest import GROUP_KINDS, Manifest, dig, kind_of, label_of, owners_of_replicas

_NUMBER: Final = "deployment.kubernetes.io/revision"
"""The deployment controller's own annotation."""
_STATUS_UNREAD: Final = frozenset({*GROUP_KINDS, "Service", "PodDisruptionBudget"})
_CONDITIONS: Final = frozenset({"PodScheduled", "Ready"})
_OF_CONTAINERS: Final = ("name", "restartCount", "started", "state", "lastState")
_READ_OF_OWNERS: Final = ("manager", "operation", "subresource", "time")
_READ_OF_AUTOSCALERS: Final = ("desiredReplicas", "currentMetrics")
_JUDGED: Final = frozenset({"AbleToScale", "ScalingActive", "ScalingLimited"})


def slim(manifest: Manifest) -> Manifest:
    """Without what no decision reads: managedFields often outweigh the rest, and a pod's spec is its template.

    What is left out is no news either, such as the addresses that a pod gets on its way.
    """
    kind = kind_of(manifest)
    metadata = {name: value for name, value in manifest["metadata"].items() if name != "managedFields"}
    found = {**manifest, "metadata": metadata}
    if kind == names.KIND:
        metadata |= _writers(manifest)
    elif kind == "Pod":
        found.pop("spec", None)
        found["status"] = _status_of_pod(dig(manifest, "status", default={}))
    elif kind == "Deployment":
        refusals = [one for one in dig(manifest, "status", "conditions", default=()) if one["type"] == "ReplicaFailure"]
        found["status"] = {"conditions": refusals}
        annotations = metadata.get("annotations", {})
        metadata["annotations"] = {name: value for name, value in annotations.items() if name != _NUMBER}
    elif kind == "ControllerRevision" and label_of(manifest, names.GROUP_LABEL):
        found.pop("data", None)  # no record of ours: the StatefulSet controller's, with the labels of the group's pods
    elif kind == "HorizontalPodAutoscaler":
        found["status"] = _judgement(manifest)
        metadata["managedFields"] = _judges(manifest)
    elif kind in _STATUS_UNREAD:
        found.pop("status", None)
    return found


def _status_of_pod(status: Manifest) -> dict[str, Any]:
    """The phase, whether it has a node and is ready, and how its containers are."""
    kept = {"phase": status["phase"]} if "phase" in status else {}
    if "conditions" in status:
        kept["conditions"] = [one for one in status["conditions"] if one["type"] in _CONDITIONS]
    for name in ("initContainerStatuses", "containerStatuses"):
        if name in status:
            kept[name] = [{field: one[field] for field in _OF_CONTAINERS if field in one} for one in status[name]]
    return kept


def _writers(manifest: Manifest) -> dict[str, list[Manifest]]:
    """Who owns spec.replicas, and since when, without what else they own."""
    owners = owners_of_replicas(manifest)
    read: list[Manifest] = [{name: one[name] for name in _READ_OF_OWNERS if name in one} for one in owners]
    return {"managedFields": read} if read else {}


def _judges(manifest: Manifest) -> list[Manifest]:
    """Who writes the status, without when."""
    entries = dig(manifest, "metadata", "managedFields", default=())
    return [
        {"manager": one["manager"], "subresource": "status"} for one in entries if one.get("subresource") == "status"
    ]


def _judgement(manifest: Manifest) -> Manifest:
    """What an autoscaler found and came to. That it is able to scale it says anew, in other words, at each step."""
    status = dig(manifest, "status", default={})
    told = [one for one in status.get("conditions") or () if one["type"] in _JUDGED]
    conditions = [one for one in told if one["type"] != "AbleToScale" or one["status"] != "True"]
    return {"conditions": conditions, **{name: status[name] for name in _READ_OF_AUTOSCALERS if name in status}}
