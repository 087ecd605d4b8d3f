"""The PodDisruptionBudget: a node drain takes one replica at a time."""

from typing import Any, Final

from moorage_operator.render.context import Owner

FEWEST_REPLICAS: Final = 2
"""With one replica a budget would block every drain."""


def disruption_budget(owner: Owner, stable: int, replicas: int, grouped: int | None = None) -> dict[str, Any] | None:
    """The budget over the pods of revision `stable`; None below two replicas.

    Args:
        owner: whose.
        stable: the revision.
        replicas: how many serve in all.
        grouped: pods that it shall have, where each replica is several. Kubernetes would learn that number from their
            workloads, and allow no eviction at all while a pod of a workload that was let go still ends.
    """
    if replicas < FEWEST_REPLICAS:
        return None
    allowed = {"maxUnavailable": 1} if grouped is None else {"minAvailable": max(0, grouped - 1)}
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": owner.metadata(owner.name, owner.labels()),
        "spec": {
            **allowed,
            "selector": {"matchLabels": owner.labels(stable)},
            # A replica that is broken anyway must not block the drain of its node.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
