"""plan(snapshot) -> Plan: everything the operator decides about one deployment, without I/O and without a clock."""

from collections.abc import Iterator
from typing import Final

from moorage_operator.manifest import Manifest, dig, is_deleting, kind_of, name_of, uid_of
from moorage_operator.plan import revisions as revs
from moorage_operator.plan.rollout import Share, divide
from moorage_operator.plan.situation import Situation, situation
from moorage_operator.plan.snapshot import Apply, Delete, Event, Plan, Snapshot
from moorage_operator.plan.status import report
from moorage_operator.plan.times import as_text, from_text
from moorage_operator.render.context import Context
from moorage_operator.render.disruption import disruption_budget
from moorage_operator.render.record import Role, record
from moorage_operator.render.service import service
from moorage_operator.render.workload import workload

NAMESAKE_WAIT: Final = 1.0
"""Seconds until the children of a deleted namesake are looked at again: garbage collection takes moments."""
FIRST_STATUS_WAIT: Final = 2.0
"""Seconds that the first status waits for the first pod at most."""
TAKEN_WAIT: Final = 30.0
"""Seconds until a name that somebody else's object has is looked at again: nobody tells us when it goes."""


def plan(snapshot: Snapshot, context: Context) -> Plan:
    """Decide. Following the plan brings the next snapshot closer to what spec asks for, until the plan is empty."""
    if is_deleting(snapshot.deployment):
        return Plan()  # the owner references do the rest
    found = situation(snapshot, context)
    foreign = snapshot.foreign()
    if foreign:
        return _waiting(snapshot, found, foreign, context)
    shares = _shares(found)
    status, events = report(snapshot, found, shares, snapshot.refused, context)
    hold = _hold(snapshot, found)
    return Plan(
        applies=tuple(_applies(found, shares)),
        deletes=tuple(_deletes(snapshot, found, shares)),
        status=None if hold else status,
        events=(*_promotion(found), *events),
        requeue_after=hold or _drain_wait(found, shares),
    )


def _hold(snapshot: Snapshot, found: Situation) -> float | None:
    """Seconds that the first status may wait for the first pod, which saves a write; None when it need not."""
    born = dig(snapshot.deployment, "metadata", "creationTimestamp")
    if snapshot.refused or found.replicas or not found.workloads or born is None or snapshot.reported("conditions"):
        return None
    age = (found.now - from_text(born)).total_seconds()
    return FIRST_STATUS_WAIT - age if 0 <= age < FIRST_STATUS_WAIT else None


def _waiting(snapshot: Snapshot, found: Situation, foreign: tuple[Manifest, ...], context: Context) -> Plan:
    """Names that we need belong to others: touch nothing."""
    strangers = tuple(one for one in foreign if not _is_namesake(one, snapshot.deployment))
    first = (strangers or foreign)[0]
    words = f"{kind_of(first)} {name_of(first)} exists and belongs to somebody else"
    refused = f"{words}; remove it, or give this object another name" if strangers else ""
    status, events = report(snapshot, found, _shares(found), refused, context)
    wait = TAKEN_WAIT if strangers else NAMESAKE_WAIT
    return Plan(status=status, events=events, requeue_after=wait, in_the_way=strangers)


def _is_namesake(child: Manifest, deployment: Manifest) -> bool:
    owners = dig(child, "metadata", "ownerReferences", default=())
    return any(
        owner["kind"] == deployment["kind"]
        and owner["name"] == name_of(deployment)
        and owner["uid"] != uid_of(deployment)
        for owner in owners
    )


def _shares(found: Situation) -> tuple[Share, ...]:
    return divide(
        found.wanted,
        found.crew(found.stable.number) if found.stable else None,
        found.crew(found.candidate.number) if found.candidate else None,
        tuple(found.crew(number) for number in found.leftovers()),
    )


def _applies(found: Situation, shares: tuple[Share, ...]) -> Iterator[Apply]:
    """Records, so that a workload always has one; workloads, since starting takes longest; what points at them."""
    by_number = {share.number: share for share in shares}
    for revision in found.revisions:
        role = _role(found, revision, by_number.get(revision.number))
        since = revision.since if role == revision.role else as_text(found.now)
        manifest = record(found.owner, revision.number, revision.data, role, since)
        yield Apply(manifest, f"revision {revision.number} is {role}")
    for share in shares:
        made_of = found.revision(share.number)
        if share.replicas is None or made_of is None:
            continue
        if share.replicas or share.number in found.workloads:
            manifest = workload(found.owner, share.number, made_of.template, share.replicas)
            yield Apply(manifest, f"revision {share.number}: {share.reason}")
    serving = found.stable or found.target
    if serving is not None:
        yield Apply(service(found.owner, serving.number), f"revision {serving.number} serves")
        budget = disruption_budget(found.owner, serving.number, found.wanted)
        if budget is not None:
            yield Apply(budget, f"{found.wanted} replicas: node drains take one at a time")


def _role(found: Situation, revision: revs.Revision, share: Share | None) -> Role:
    if found.stable is not None and revision.number == found.stable.number:
        return Role.STABLE
    if found.candidate is not None and revision.number == found.candidate.number:
        return Role.CANDIDATE
    return revision.role if share is not None and not share.retired else Role.RETIRED


def _deletes(snapshot: Snapshot, found: Situation, shares: tuple[Share, ...]) -> Iterator[Delete]:
    for share in shares:
        if share.replicas is None:
            yield Delete(found.workloads[share.number], f"revision {share.number}: {share.reason}")
    kept = frozenset(share.number for share in shares)
    for revision in revs.prunable(found.revisions, kept):
        if revision.record is not None:
            yield Delete(revision.record, f"revision {revision.number}: more than {revs.HISTORY_LIMIT} are recorded")
    serving = found.stable or found.target
    if serving is None or disruption_budget(found.owner, serving.number, found.wanted) is None:
        for budget in snapshot.owned("PodDisruptionBudget"):
            yield Delete(budget, f"{found.wanted} replicas: a budget would block node drains")


def _promotion(found: Situation) -> Iterator[Event]:
    if found.promoted_from and found.stable is not None:
        message = f"Revision {found.stable.number} has all requests now, instead of revision {found.promoted_from}."
        yield Event("Normal", "Promoted", message)


def _drain_wait(found: Situation, shares: tuple[Share, ...]) -> float | None:
    """Seconds until the first retired revision has drained; None when none is draining."""
    retired = (found.revision(share.number) for share in shares if share.retired and share.replicas is not None)
    waits = [left for revision in retired if (left := found.drain_left(revision)) > 0]
    return min(waits, default=None)
