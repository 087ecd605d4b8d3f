"""What runs the replicas of one revision: a Deployment, or for each replica that is a group of pods a workload.

That is a StatefulSet or, where the cluster has those, a LeaderWorkerSet with that group alone: which groups there are,
and which of them goes, is decided here by what each of them is worth, and not by their numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from moorage_api import names
from moorage_operator.manifest import LEADER_WORKER_SET, STATEFUL_SET, Manifest, dig, kind_of
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


@dataclass(frozen=True)
class Making:
    """How a group is made, beside what it is made of."""

    kind: str = STATEFUL_SET
    restarted: str = ""
    """Which restart it is of; empty for none."""

    @classmethod
    def of(cls, workload: Manifest) -> "Making":
        """That of a group that is there."""
        return cls(kind_of(workload), restart_of(workload))


def group(owner: Owner, number: int, index: int, template: Manifest, making: Making) -> dict[str, Any]:
    """Group `index` of revision `number`: all pods of one replica, which start together and find each other by name.

    A group never changes, not even by a restart, which makes other groups: its pods are of no use without each other.
    """
    labels = {**owner.labels(number), names.GROUP_LABEL: str(index)}
    metadata = template["metadata"]
    together = {**template, "metadata": {**metadata, "labels": {**metadata["labels"], **labels}}}
    pods = _restarted(together, making.restarted)
    leads = making.kind == LEADER_WORKER_SET
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1" if leads else "apps/v1",
        "kind": making.kind,
        "metadata": owner.metadata(owner.group_name(number, index), labels),
        "spec": _leader_and_workers(pods) if leads else _stateful(owner, labels, pods),
    }


def _stateful(owner: Owner, labels: Mapping[str, str], pods: Manifest) -> dict[str, Any]:
    return {
        "replicas": pods_of(pods),
        "revisionHistoryLimit": 0,
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "OnDelete"},
        "serviceName": owner.ranks_name,
        "selector": {"matchLabels": labels},
        "template": pods,
    }


def _leader_and_workers(pods: Manifest) -> dict[str, Any]:
    """Its webhook puts the places that it gives into the variables that the template has for them.

    Its restart policy is `None`, since ranks that lose one end together and start again in their pods.
    Source: https://lws.sigs.k8s.io/docs/reference/leaderworkerset.v1/
    """
    return {
        "replicas": 1,
        "startupPolicy": "LeaderCreated",
        "networkConfig": {"subdomainPolicy": "Shared"},
        "leaderWorkerTemplate": {"size": pods_of(pods), "restartPolicy": "None", "workerTemplate": pods},
    }


def template_of(workload: Manifest) -> Manifest:
    """That of the pods of a workload of ours."""
    path = ("leaderWorkerTemplate", "workerTemplate") if kind_of(workload) == LEADER_WORKER_SET else ("template",)
    found: Manifest = dig(workload, "spec", *path, default={})
    return found


def pods_made(workload: Manifest) -> int:
    """How many pods a workload of ours makes."""
    size = dig(workload, "spec", "leaderWorkerTemplate", "size", default=1)
    return int(dig(workload, "spec", "replicas", default=0)) * int(size)


def restart_of(manifest: Manifest) -> str:
    """Which restart the pods of a workload are of; empty for none."""
    return str(dig(template_of(manifest), "metadata", "annotations", RESTARTED, default=""))


def _restarted(template: Manifest, restart: str) -> Manifest:
    if not restart:
        return template
    metadata = template["metadata"]
    annotations = {**metadata.get("annotations", {}), RESTARTED: restart}
    return {**template, "metadata": {**metadata, "annotations": annotations}}
