"""What each revision is from now on: written on the records before anything else, so that any death is survived."""

from dataclasses import replace
from typing import Final

from moorage_operator.plan import actions
from moorage_operator.plan.divide import Share
from moorage_operator.plan.revisions import Revision
from moorage_operator.plan.rollout import Verdict
from moorage_operator.plan.situation import Situation
from moorage_operator.plan.times import as_text
from moorage_operator.plan.zero import Mode
from moorage_operator.render.record import Role, Standing

ALONE: Final = "alone"
"""How a revision became stable that proved itself with one replica while nobody asked for the deployment."""


def judged(found: Situation, verdict: Verdict) -> Situation:
    """The situation once the verdict has come into effect: the candidate is stable, or given up."""
    candidate, now = found.candidate, found.now
    if candidate is not None and verdict.promote:
        # What a person said about its rollout stays, for what is told of the promotion, whoever dies on the way.
        stable = _changed(candidate.standing, Role.STABLE, found)
        steering = ALONE if found.scale.proves else candidate.standing.steering
        asleep = as_text(now) if found.scale.asleep else ""
        woken = _woken(found)
        stable = replace(stable, promoted=as_text(now), drains=verdict.drains)
        standing = replace(stable, steering=steering, asleep=asleep, woken=woken)
        found = found.with_revision(replace(candidate, standing=standing))
        return replace(found, stable=found.target)
    if candidate is not None and verdict.given_up is not None:
        why = verdict.given_up
        standing = actions.given_up(candidate.standing, why.reason, why.message, now)
        found = found.with_revision(replace(candidate, standing=standing))
        found = found.at_zero() if found.scale.proves else found
    if found.target is not None and found.target.standing.drains != verdict.drains:
        standing = replace(found.target.standing, drains=verdict.drains)
        found = found.with_revision(replace(found.target, standing=standing))
    return found


def _woken(found: Situation) -> str:
    """When the deployment woke; a model that may sleep and has just proven itself is as one that was just woken."""
    if found.scale.proves or (found.stable is None and found.scale.mode is Mode.AWAKE):
        return as_text(found.now)
    return found.stable.standing.woken if found.stable is not None else ""


def standing(found: Situation, revision: Revision, share: Share | None) -> Standing:
    """What a revision is, given what it gets."""
    if found.stable is not None and revision.number == found.stable.number:
        return _changed(revision.standing, Role.STABLE, found)
    if found.target is not None and revision.number == found.target.number:
        return revision.standing
    if share is not None and not share.retired:
        return revision.standing
    return _changed(revision.standing, _put_aside(found, revision), found)


def _put_aside(found: Situation, revision: Revision) -> Role:
    """A revision that takes no part: warm if it was stable and its time is not over."""
    if revision.role is Role.WARM:
        return Role.WARM if found.crew(revision.number).kept else Role.RETIRED
    if revision.role is Role.STABLE and found.would_keep(revision):
        return Role.WARM
    return Role.RETIRED


def _changed(before: Standing, role: Role, found: Situation) -> Standing:
    """The same in another role, since now; the same where it has that role."""
    if before.role is role:
        return before
    now = as_text(found.now)
    promoted = now if role is Role.STABLE else before.promoted
    return replace(before, role=role, since=now, promoted=promoted, steering="")
