"""The Deployment that runs the replicas of one revision."""

from typing import Any

from moorage_operator.manifest import Manifest
from moorage_operator.render.context import Owner


def workload(owner: Owner, number: int, template: Manifest, replicas: int) -> dict[str, Any]:
    """Revision `number` with `replicas` pods of `template`.

    The template of a workload never changes (an edit makes another revision with another workload), so the Deployment
    only ever scales and all new pods of a revision start together.
    """
    labels = owner.labels(number)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": owner.metadata(owner.revision_name(number), labels),
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 0,
            "selector": {"matchLabels": labels},
            "template": template,
        },
    }
