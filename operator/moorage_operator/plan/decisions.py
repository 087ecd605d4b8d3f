"""What was decided: the difference between the status that was last written and the one that is to be.

So a decision is told exactly once, together with what it changed, whatever dies in between.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from moorage_api.status import Decision, RevisionStatus, Status
from moorage_operator.manifest import dig
from moorage_operator.plan.remembered import Row, all_remembered
from moorage_operator.plan.snapshot import Event

REMEMBERED: Final = 10
_Rows = dict[int, Row]


def decisions(before: Any, after: Status, now: datetime, promoted: str) -> tuple[Decision, ...]:
    """The last ten decisions, those that make `after` out of `before` (the raw status) among them.

    `promoted` is why the revision that is stable became so.
    """
    now = now.replace(microsecond=0)
    told = all_remembered(Decision, before.get("decisions"))
    if "revisions" not in before:
        return told
    rows: _Rows = {row.number: row for row in all_remembered(Row, before["revisions"])}
    new = (*_turns(before, after, now, promoted), *_weights(rows, after, now), *_scales(rows, after, now))
    return (*told, *new)[-REMEMBERED:]


def announcements(before: Any, after: tuple[Decision, ...]) -> tuple[Event, ...]:
    """An Event for each decision that is new and that people want to find later."""
    known = {(one.time, one.kind, one.to) for one in all_remembered(Decision, before)}
    new = (one for one in after if (one.time, one.kind, one.to) not in known)
    return tuple(event for one in new if (event := _event(one)) is not None)


def _event(decision: Decision) -> Event | None:
    old, new = (text.removeprefix("r") for text in (decision.from_, decision.to))
    if decision.kind == "Promote":
        words = f"Revision {new} has all requests now, instead of revision {old}: {decision.reason}."
        return Event("Normal", "Promoted", words)
    if decision.kind == "Rollback":
        words = f"Revision {old} was given up, revision {new} has all requests: {decision.reason}."
        return Event("Warning", "RolledBack", words)
    return None


def _turns(before: Any, after: Status, now: datetime, promoted: str) -> Iterable[Decision]:
    """A revision became stable, or was given up."""
    was, candidate = dig(before, "revision", "stable"), dig(before, "revision", "candidate")
    stable = after.revision.stable if after.revision is not None else None
    if was is not None and stable is not None and was != stable:
        yield Decision(time=now, kind="Promote", from_=f"r{was}", to=f"r{stable}", reason=promoted)
    given_up = next((one for one in after.revisions if one.number == candidate and one.role == "failed"), None)
    if given_up is not None:
        reason = f"{given_up.reason}: {given_up.message}"
        yield Decision(time=now, kind="Rollback", from_=f"r{given_up.number}", to=f"r{stable}", reason=reason)


def _weights(before: _Rows, after: Status, now: datetime) -> Iterable[Decision]:
    was = {number: row.weight for number, row in before.items() if row.weight}
    shall = {row.number: row.weight for row in after.revisions if row.weight}
    if was and shall and was != shall:
        yield Decision(time=now, kind="Weight", from_=_shares(was), to=_shares(shall), reason=_why(was, after))


def _scales(before: _Rows, after: Status, now: datetime) -> Iterable[Decision]:
    was = {number: row.replicas for number, row in before.items()}
    for row in after.revisions:
        if row.number in was and was[row.number] != row.replicas:
            reason = f"{row.role}, {_ready(row)}"
            old, new = f"r{row.number}: {was[row.number]}", f"r{row.number}: {row.replicas}"
            yield Decision(time=now, kind="Scale", from_=old, to=new, reason=reason)


def _why(was: dict[int, int], after: Status) -> str:
    """Why requests move: for the rollout's sake, away from what was given up, or with the replicas."""
    if after.rollout is not None and after.rollout.message:
        return after.rollout.message
    given_up = next((row for row in after.revisions if row.role == "failed" and row.number in was), None)
    return f"r{given_up.number} was given up" if given_up is not None else _routable(after)


def _shares(weights: dict[int, int]) -> str:
    return ", ".join(f"r{number}: {weight} %" for number, weight in sorted(weights.items()))


def _routable(after: Status) -> str:
    return "; ".join(f"r{row.number}: {row.routable} routable" for row in after.revisions)


def _ready(row: RevisionStatus) -> str:
    return f"{row.ready} ready, {row.routable} routable"
