"""Who writes spec.replicas, when, and why it is what it is: for decisions, and to notice when two do.

The API server records in managedFields which manager owns a field (KEP-555). A write through the scale subresource, as
autoscalers and `kubectl scale` make it, is told apart from one of the whole object. Where nobody owned the number
before, as in an object that was applied without it, nothing is recorded of such a write: then the autoscaler's own word
tells the two apart. Source: skipNonAppliedManager in k8s.io/apimachinery/pkg/util/managedfields.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from moorage_api.quantity import quantity_value
from moorage_operator.manifest import Manifest, dig, owners_of_replicas
from moorage_operator.plan.remembered import remembered_moment

CONTROLLER: Final = "kube-controller-manager"
"""The manager that HorizontalPodAutoscalers write as, where nothing else is known: the name of the binary."""
APPLIES: Final = "applies spec.replicas"
"""Of somebody who means a number, and will apply it again."""
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"


def told_by(deployment: Manifest, autoscaler: Manifest | None) -> str:
    """Why spec.replicas is what it is, in words: the autoscaler's figures, or who wrote it."""
    number, scaled = _number(deployment), _scaled_by(deployment)
    if autoscaler is not None and scaled in ("", _controller(autoscaler)) and _desired(autoscaler) == number:
        return f"HPA: {', '.join(_figures(autoscaler)) or f'{number} wanted'}"
    if scaled:
        return f"{'an HPA' if scaled == _controller(autoscaler) else scaled} scaled it to {number}"
    applied = _applied_by(deployment)
    return f"{applied} applied replicas {number}" if applied else f"spec.replicas is {number}"


def is_unripe(deployment: Manifest, autoscaler: Manifest | None) -> bool:
    """Whether the autoscaler may have written a number without its figures: its status comes a moment later."""
    owned = bool(owners_of_replicas(deployment))
    may_have = autoscaler is not None and (not owned or _scaled_by(deployment) == _controller(autoscaler))
    return may_have and _desired(autoscaler) not in (None, _number(deployment))


def second(deployment: Manifest, autoscaler: Manifest | None) -> str:
    """Who else writes spec.replicas while an autoscaler does, in words; empty: nobody.

    Whoever applies the number means it, and will do so again. Whoever made the object otherwise owns the schema's
    default, too, and may not have meant anything.
    """
    if applied := _applied_by(deployment):
        return f"{applied} {APPLIES}"
    if _is_in_last_applied(deployment):
        return "kubectl apply writes spec.replicas"
    scaled = _scaled_by(deployment)
    overruled = _measures(autoscaler) and _desired(autoscaler) not in (None, _number(deployment))
    who = scaled or ("" if owners_of_replicas(deployment) else "somebody")
    return f"{who} scaled it last" if who not in ("", _controller(autoscaler)) and overruled else ""


def written(deployment: Manifest) -> datetime | None:
    """When somebody last wrote the number; None where nobody is known to."""
    times = (remembered_moment(one.get("time")) for one in owners_of_replicas(deployment))
    return max((one for one in times if one is not None), default=None)


def is_content(autoscaler: Manifest | None) -> bool:
    """Whether the autoscaler measures, and what runs is enough by it, also while it keeps a higher number for a while.

    (Down it goes only once it has wanted so for `stabilizationWindowSeconds`.)
    """
    if autoscaler is None or not _measures(autoscaler):
        return False
    return all(current <= target for _, current, target in _measured(autoscaler))


def _measures(autoscaler: Manifest | None) -> bool:
    said = dig(autoscaler, "status", "conditions", default=())
    return any(one["type"] == "ScalingActive" and one["status"] == "True" for one in said)


def _controller(autoscaler: Manifest | None) -> str:
    """The manager that autoscalers write as in this cluster, `k3s`, say: whoever writes the status of ours."""
    entries = dig(autoscaler, "metadata", "managedFields", default=())
    return next((str(one["manager"]) for one in entries if one.get("subresource") == "status"), CONTROLLER)


def _scaled_by(deployment: Manifest) -> str:
    """Who wrote the number by the scale subresource."""
    owners = owners_of_replicas(deployment)
    return next((str(one.get("manager")) for one in owners if one.get("subresource") == "scale"), "")


def _applied_by(deployment: Manifest) -> str:
    """Who applied the number, server-side."""
    owners = owners_of_replicas(deployment)
    return next((str(one.get("manager")) for one in owners if one.get("operation") == "Apply"), "")


def _number(deployment: Manifest) -> Any:
    return dig(deployment, "spec", "replicas", default=1)


def _desired(autoscaler: Manifest | None) -> Any:
    return dig(autoscaler, "status", "desiredReplicas")


def _is_in_last_applied(deployment: Manifest) -> bool:
    text = dig(deployment, "metadata", "annotations", _LAST_APPLIED)
    try:
        return text is not None and dig(json.loads(text), "spec", "replicas") is not None
    except ValueError:  # a person's own annotation of that name
        return False


def _figures(autoscaler: Manifest) -> Iterator[str]:
    """What it measured, beside what it was to hold, in words."""
    for name, current, target in _measured(autoscaler):
        place = "over" if current > target else "under" if current < target else "at"
        yield f"{name} {current:g} {place} {target:g} per replica"


def _measured(autoscaler: Manifest) -> Iterator[tuple[str, float, float]]:
    """Each metric, what a replica has of it, and what it should have."""
    targets = {_name(one): one for one in dig(autoscaler, "spec", "metrics", default=())}
    for measured in dig(autoscaler, "status", "currentMetrics", default=()) or ():
        name = _name(measured)
        current, target = _per_replica(measured, "current"), _per_replica(targets.get(name, {}), "target")
        if current is not None and target is not None:
            yield name, current, target


def _name(metric: Manifest) -> str:
    return str(dig(metric, "object", "metric", "name") or dig(metric, "resource", "name", default=""))


def _per_replica(metric: Manifest, side: str) -> float | None:
    found = dig(metric, "object", side, "averageValue")
    percent = dig(metric, "resource", side, "averageUtilization")
    if found is None:
        return None if percent is None else float(percent)
    try:
        return float(quantity_value(str(found)))
    except ValueError:  # in a form of quantities that nothing of ours writes, such as 1e3
        return None
