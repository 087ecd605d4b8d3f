"""What is kept of an object in memory."""

from typing import Final

from moorage_operator.manifest import Manifest, dig, kind_of

_NUMBER: Final = "deployment.kubernetes.io/revision"
"""The deployment controller's own annotation."""
_STATUS_UNREAD: Final = frozenset({"Service", "PodDisruptionBudget"})


def slim(manifest: Manifest) -> Manifest:
    """Without what no decision reads: managedFields often outweigh the rest, and a pod's spec is its template."""
    kind = kind_of(manifest)
    metadata = {name: value for name, value in manifest["metadata"].items() if name != "managedFields"}
    found = {**manifest, "metadata": metadata}
    if kind == "Pod":
        found.pop("spec", None)
    elif kind == "Deployment":
        refusals = [one for one in dig(manifest, "status", "conditions", default=()) if one["type"] == "ReplicaFailure"]
        found["status"] = {"conditions": refusals}
        annotations = metadata.get("annotations", {})
        metadata["annotations"] = {name: value for name, value in annotations.items() if name != _NUMBER}
    elif kind in _STATUS_UNREAD:
        found.pop("status", None)
    return found
