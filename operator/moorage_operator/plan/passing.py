"""What passes: phases of a start that are over before anybody could read of them."""

from typing import Final

from moorage_api.conditions import PODS_ON_THE_WAY, ConditionType, Reason
from moorage_operator.manifest import Manifest

_START: Final = frozenset(PODS_ON_THE_WAY)
_TELLING: Final = frozenset({*PODS_ON_THE_WAY, Reason.ROLLING_OUT, Reason.SCALING})
"""Reasons whose messages name the phase of the next replica."""
_PHASES: Final = frozenset({"startup", "replicas", "conditions"})


def passes(before: Manifest, after: Manifest) -> bool:
    """Whether a status tells nothing new but how far replicas have come that are not ready yet.

    The API server's work is writes: such a status may wait a moment, and is often out of date by then.

    Args:
        before: the status that was last written; empty before the first one.
        after: the status that is to be.
    """
    if not before:
        return any(one["type"] == ConditionType.READY and one["reason"] in _START for one in after["conditions"])
    return _lasting(before) == _lasting(after)


def _lasting(status: Manifest) -> tuple[list[Manifest], Manifest]:
    conditions = [_condition(one) for one in status.get("conditions", ())]
    return conditions, {name: value for name, value in status.items() if name not in _PHASES}


def _condition(one: Manifest) -> Manifest:
    reason = one.get("reason")
    message = "" if reason in _TELLING else one.get("message")
    return {**one, "reason": "" if reason in _START else reason, "message": message}
