"""The HorizontalPodAutoscaler of a deployment. It writes `spec.replicas` by the scale subresource of the LLMDeployment.

So it never has to know of revisions: whatever it asks for, the plan divides. Its targets are Object metrics, the sum
over all serving replicas; `averageValue` makes the autoscaler divide that by the number of replicas.

Source: KEP-2702 (autoscaling/v2).
"""

import json
import math
from typing import Any, Final

from moorage_api import names
from moorage_api.autoscaling import Autoscaling, Target
from moorage_api.quantity import quantity_value
from moorage_operator.render.context import Owner

BEHAVIOR: Final = f"{names.GROUP}/behavior"
"""Annotation: what spec says of it. The API server fills in what is left out, so that the live object cannot tell what
was asked for."""


def autoscaler(owner: Owner, autoscaling: Autoscaling, *, by_cpu_alone: bool = False) -> dict[str, Any] | None:
    """The autoscaler; None where it would have nothing to go by.

    Args:
        owner: what it scales.
        autoscaling: between which numbers, by what and how fast.
        by_cpu_alone: our metrics cannot be had; the CPU of pods, as metrics-server measures it, can.
    """
    if by_cpu_alone:
        metrics = [_cpu(target) for target in autoscaling.targets if target.metric == "CPUUtilization"]
    else:
        metrics = [_object(owner, target) for target in autoscaling.targets]
    if not metrics:
        return None
    behavior = autoscaling.behavior.to_api() if autoscaling.behavior is not None else {}
    metadata = owner.metadata(owner.name, owner.labels())
    if behavior:
        metadata["annotations"] = {BEHAVIOR: json.dumps(behavior, sort_keys=True)}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata,
        "spec": {
            "scaleTargetRef": _reference(owner),
            # It cannot count from zero; the plan takes an unused model there, and a request brings it back.
            "minReplicas": max(1, autoscaling.min_replicas),
            "maxReplicas": autoscaling.max_replicas,
            "metrics": metrics,
            **({"behavior": behavior} if behavior else {}),
        },
    }


def _reference(owner: Owner) -> dict[str, str]:
    return {"apiVersion": names.API_VERSION, "kind": names.KIND, "name": owner.name}


def _object(owner: Owner, target: Target) -> dict[str, Any]:
    return {
        "type": "Object",
        "object": {
            "describedObject": _reference(owner),
            "metric": {"name": target.metric},
            "target": {"type": "AverageValue", "averageValue": target.average_value},
        },
    }


def _cpu(target: Target) -> dict[str, Any]:
    """Percent of what a pod requests, in whole ones."""
    percent = max(1, math.floor(quantity_value(target.average_value)))
    return {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}},
    }
