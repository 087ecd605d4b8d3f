"""What remains of the previous stable revision after a rollout, so that going back takes seconds."""

from collections.abc import Iterable
from datetime import datetime

from moorage_api.duration import duration_value
from moorage_api.rollout import Rollout
from moorage_operator.plan.revisions import Revision
from moorage_operator.plan.times import from_text
from moorage_operator.render.record import Role


def kept(rollout: Rollout, wanted: int, *, short: bool) -> int:
    """Replicas to keep; none by default, at zero, and while somebody's pod waits for accelerators.

    None after a blue-green rollout either: its old colour had its time before the promotion.
    """
    if rollout.keep_warm is None or not wanted or short or rollout.strategy == "BlueGreen":
        return 0
    return rollout.keep_warm.replicas


def warm(revisions: Iterable[Revision], stable: int | None) -> Revision | None:
    """The one revision that is warm: the last that was put aside."""
    found = [one for one in revisions if one.role is Role.WARM and one.number != stable]
    return max(found, key=lambda one: one.standing.since, default=None)


def seconds_left(rollout: Rollout, revision: Revision, now: datetime) -> float:
    """Seconds until its time is over."""
    if rollout.keep_warm is None or not revision.standing.since:
        return 0.0
    end = from_text(revision.standing.since) + duration_value(rollout.keep_warm.for_)
    return (end - now).total_seconds()
