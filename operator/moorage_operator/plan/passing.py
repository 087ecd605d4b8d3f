"""What passes: phases of a start that are over before anybody could read of them, and figures, which never press."""

from collections.abc import Collection
from typing import Any, Final

from moorage_api.conditions import PODS_ON_THE_WAY, ConditionType, Reason
from moorage_operator.manifest import Manifest

_START: Final = frozenset(PODS_ON_THE_WAY)
_TELLING: Final = frozenset({*PODS_ON_THE_WAY, Reason.ROLLING_OUT, Reason.SCALING})
"""Reasons whose messages name the phase of the next replica."""
_PHASES: Final = frozenset({"startup", "replicas", "conditions"})
_FIGURES: Final = frozenset({"gpu", "traffic", "measured"})
_COUNTS: Final = frozenset({"ready", "readyReplicas"})
"""How many are ready. While more are on their way the next number may be there in a moment."""


def passes(before: Manifest, after: Manifest) -> bool:
    """Whether a status tells nothing new but figures, and how far replicas have come of which not all are ready yet.

    The API server's work is writes: such a status may wait a moment, and is often out of date by then.

    Args:
        before: the status that was last written; empty before the first one.
        after: the status that is to be.
    """
    if not before:
        return any(one["type"] == ConditionType.READY and one["reason"] in _START for one in after["conditions"])
    return _lasting(before) == _lasting(after)


def moves_nothing(before: Manifest, after: Manifest) -> bool:
    """Whether no request goes another way by a status: then it may wait for what else belongs to what it says.

    Args:
        before: the status that was last written; empty before the first one.
        after: the status that is to be.
    """
    return not before or _ways(before) == _ways(after)


def _ways(status: Manifest) -> tuple[Any, ...]:
    rows = ((row.get("number"), row.get("role"), row.get("weight")) for row in status.get("revisions", ()))
    return (status.get("revision"), *rows)


def _lasting(status: Manifest) -> tuple[list[Manifest], list[Manifest], Manifest]:
    conditions = status.get("conditions", [])
    awaited = any(one["type"] == ConditionType.READY and one.get("reason") in _TELLING for one in conditions)
    # Gateways have a replica in their tables a moment after it is ready.
    passing = {"routable", "ready"} if awaited else {"routable"}
    rows = [_without(row, passing) for row in status.get("revisions", ())]
    rest = _without(status, {*_PHASES, *_FIGURES, "revisions", *(_COUNTS if awaited else ())})
    return [_condition(one, awaited=awaited) for one in conditions], rows, rest


def _condition(one: Manifest, *, awaited: bool) -> Manifest:
    reason = one.get("reason")
    counts = awaited and one.get("type") == ConditionType.AVAILABLE and reason == Reason.SERVING
    message = "" if counts or reason in _TELLING else one.get("message")
    return {**one, "reason": "" if reason in _START else reason, "message": message}


def _without(fields: Manifest, left_out: Collection[str]) -> Manifest:
    return {name: value for name, value in fields.items() if name not in left_out}
