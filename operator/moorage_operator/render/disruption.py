"""The PodDisruptionBudget: a node drain takes one replica at a time."""

from typing import Any, Final

from moorage_operator.render.context import Owner

FEWEST_REPLICAS: Final = 2
"""With one replica a budget would block every drain."""


def disruption_budget(owner: Owner, stable: int, replicas: int) -> dict[str, Any] | None:
    """The budget over the pods of revision `stable`; None below two replicas."""
    if replicas < FEWEST_REPLICAS:
        return None
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": owner.metadata(owner.name, owner.labels()),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": owner.labels(stable)},
            # A replica that is broken anyway must not block the drain of its node.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
