"""What runs the replicas of one revision: a Deployment, or a StatefulSet for each replica that is a group of pods."""

from dataclasses import dataclass
from typing import Any, Final

from moorage_api import names
from moorage_operator.manifest import Manifest, dig
from moorage_operator.render.context import Owner
from moorage_operator.render.sharding import pods_of

RESTARTED: Final = f"{names.GROUP}/restarted"
"""Annotation of pods: which restart they are of."""


@dataclass(frozen=True)
class Replacement:
    """How the pods of one revision are replaced by others of the same revision, when a person restarts it."""

    restarted: str = ""
    """Which restart; empty for none."""
    surge: int = 1
    unavailable: int = 0


def workload(owner: Owner, number: int, template: Manifest, replicas: int, replacement: Replacement) -> dict[str, Any]:
    """Revision `number` with `replicas` pods of `template`.

    The template of a workload never changes but for a restart (an edit makes another revision with another workload),
    so the Deployment only ever scales and all new pods of a revision start together.
    """
    labels = owner.labels(number)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": owner.metadata(owner.revision_name(number), labels),
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 0,
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": replacement.surge, "maxUnavailable": replacement.unavailable},
            },
            "selector": {"matchLabels": labels},
            "template": _restarted(template, replacement.restarted),
        },
    }


def group(owner: Owner, number: int, index: int, template: Manifest, restarted: str) -> dict[str, Any]:
    """Group `index` of revision `number`: all pods of one replica, which start together and find each other by name.

    A group never changes, not even by a restart, which makes other groups: its pods are of no use without each other.
    """
    labels = {**owner.labels(number), names.GROUP_LABEL: str(index)}
    metadata = template["metadata"]
    pods = {**template, "metadata": {**metadata, "labels": {**metadata["labels"], **labels}}}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": owner.metadata(owner.group_name(number, index), labels),
        "spec": {
            "replicas": pods_of(template),
            "revisionHistoryLimit": 0,
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "OnDelete"},
            "serviceName": owner.ranks_name,
            "selector": {"matchLabels": labels},
            "template": _restarted(pods, restarted),
        },
    }


def restart_of(manifest: Manifest) -> str:
    """Which restart the pods of a workload are of; empty for none."""
    return str(dig(manifest, "spec", "template", "metadata", "annotations", RESTARTED, default=""))


def _restarted(template: Manifest, restart: str) -> Manifest:
    if not restart:
        return template
    metadata = template["metadata"]
    annotations = {**metadata.get("annotations", {}), RESTARTED: restart}
    return {**template, "metadata": {**metadata, "annotations": annotations}}
