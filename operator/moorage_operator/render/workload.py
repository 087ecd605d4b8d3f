"""The Deployment that runs the replicas of one revision."""

from dataclasses import dataclass
from typing import Any, Final

from moorage_api import names
from moorage_operator.manifest import Manifest
from moorage_operator.render.context import Owner

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
    if replacement.restarted:
        metadata = template["metadata"]
        annotations = {**metadata.get("annotations", {}), RESTARTED: replacement.restarted}
        template = {**template, "metadata": {**metadata, "annotations": annotations}}
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
            "template": template,
        },
    }
