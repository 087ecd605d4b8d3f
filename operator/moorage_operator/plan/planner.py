"""plan(snapshot) -> Plan: everything the operator decides about one deployment, without I/O and without a clock."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from moorage_operator.manifest import Manifest, dig, is_deleting, kind_of, name_of, revision_of, uid_of
from moorage_operator.plan import autoscaled, sharded, warm, writers
from moorage_operator.plan import revisions as revs
from moorage_operator.plan.divide import Share, divide
from moorage_operator.plan.rollout import Verdict, judge
from moorage_operator.plan.sharded import Arranged
from moorage_operator.plan.situation import Situation, situation
from moorage_operator.plan.snapshot import Apply, Delete, Plan, Snapshot
from moorage_operator.plan.standings import judged, standing
from moorage_operator.plan.status import Judged, report
from moorage_operator.plan.target import resolve_pods
from moorage_operator.plan.zero import Mode
from moorage_operator.render.context import Context
from moorage_operator.render.disruption import disruption_budget
from moorage_operator.render.record import Role, record
from moorage_operator.render.resolve import resolve_pod
from moorage_operator.render.service import service
from moorage_operator.render.workload import Replacement, workload

NAMESAKE_WAIT: Final = 1.0
"""Seconds until the children of a deleted namesake are looked at again: garbage collection takes moments."""
TAKEN_WAIT: Final = 30.0
"""Seconds until a name that somebody else's object has is looked at again: nobody tells us when it goes."""


def plan(snapshot: Snapshot, context: Context) -> Plan:
    """Decide. Following the plan brings the next snapshot closer to what spec asks for, until the plan is empty."""
    if is_deleting(snapshot.deployment):
        return Plan()  # the owner references do the rest
    found = situation(snapshot, context)
    verdict = judge(found)
    if foreign := snapshot.foreign():
        return _waiting(snapshot, found, verdict, foreign, context)
    if found.scale.mode is Mode.IDLE and not verdict.busy:
        found = found.at_zero()
        verdict = judge(found)
    found = judged(found, verdict)
    shares = _shares(found, verdict)
    if found.ledger.lacks(shares):
        found = replace(found, accelerators_short=True)  # what is kept warm goes first
        shares = _shares(found, verdict)
    decided = Judged(found, verdict, found.ledger.within(shares))
    told = report(snapshot, decided, snapshot.refused, context)
    groups = sharded.arranged(decided)
    scaler = autoscaled.writes(snapshot, found)
    waits = _waits(found, decided.shares, groups)
    blocked = TAKEN_WAIT if scaler.in_the_way or snapshot.autoscaler_refused else 0.0
    return Plan(
        applies=(*_applies(decided, groups, context), *scaler.applies),
        deletes=(*_deletes(snapshot, found, decided.shares, groups), *scaler.deletes),
        status=told.status,
        events=told.events,
        unripe=writers.is_unripe(snapshot.deployment, snapshot.autoscaler),
        requeue_after=_soonest((*found.scale.wakes, *verdict.wakes, *told.wakes, *waits, blocked)),
        in_the_way=scaler.in_the_way,
    )


def _waiting(
    snapshot: Snapshot, found: Situation, verdict: Verdict, foreign: tuple[Manifest, ...], context: Context
) -> Plan:
    """Names that we need belong to others: touch nothing, nor the requests, which move by what the status says."""
    strangers = tuple(one for one in foreign if not _is_namesake(one, snapshot.deployment))
    first = (strangers or foreign)[0]
    words = f"{kind_of(first)} {name_of(first)} exists and belongs to somebody else"
    refused = f"{words}; remove it, or give this object another name" if strangers else ""
    course = replace(verdict.course, frozen=True, silent=True)
    still = Verdict(course=course, said=verdict.said, status=found.before)
    told = report(snapshot, Judged(found, still, _shares(found, still)), refused, context)
    wait = TAKEN_WAIT if strangers else NAMESAKE_WAIT
    return Plan(status=told.status, events=told.events, requeue_after=wait, in_the_way=strangers)


def _is_namesake(child: Manifest, deployment: Manifest) -> bool:
    owners = dig(child, "metadata", "ownerReferences", default=())
    return any(
        owner["kind"] == deployment["kind"]
        and owner["name"] == name_of(deployment)
        and owner["uid"] != uid_of(deployment)
        for owner in owners
    )


def _shares(found: Situation, verdict: Verdict) -> tuple[Share, ...]:
    return divide(
        found.wanted,
        found.crew(found.stable.number) if found.stable else None,
        found.crew(found.candidate.number) if found.candidate else None,
        tuple(found.crew(number) for number in found.leftovers()),
        verdict.course,
    )


def _applies(decided: Judged, groups: Arranged, context: Context) -> Iterator[Apply]:
    """Records, so that a workload always has one; workloads, since starting takes longest; what points at them."""
    found = decided.found
    by_number = {share.number: share for share in decided.shares}
    for revision in found.revisions:
        stands = standing(found, revision, by_number.get(revision.number))
        yield Apply(
            record(found.owner, revision.number, revision.data, stands),
            f"revision {revision.number} is {stands.role}{': ' if stands.reason else ''}{stands.reason}",
        )
    yield from sharded.surroundings(found.owner, groups)
    yield from _workloads(decided, groups)
    if found.pending is not None and found.pending.pod is None:
        pod = resolve_pod(found.owner, found.pending.number, found.pending.spec, context)
        yield Apply(pod, f"revision {found.pending.number}: {found.pending.spec.model.source} may move, so look it up")
    if found.serving is not None:
        number, template = found.serving.number, found.serving.template
        yield Apply(service(found.owner, number, template), f"revision {number} serves")
        grouped = sharded.pods_wanted(found.serving, by_number[number]) if number in groups else None
        budget = disruption_budget(found.owner, number, found.wanted, grouped)
        if budget is not None:
            yield Apply(budget, f"{found.wanted} replicas: node drains take one at a time")


def _workloads(decided: Judged, groups: Arranged) -> Iterator[Apply]:
    found, room = decided.found, decided.verdict.restarts
    for share in decided.shares:
        made_of = found.revision(share.number)
        if share.replicas is None or made_of is None:
            continue
        if share.number in groups:
            yield from sharded.applies(found.owner, made_of, share, groups[share.number], found.group_kind)
        elif share.replicas or share.number in found.workloads:
            replacement = Replacement(made_of.standing.restarted, room.surge, room.unavailable)
            manifest = workload(found.owner, share.number, made_of.template, share.replicas, replacement)
            yield Apply(manifest, f"revision {share.number}: {share.reason}")


def _deletes(snapshot: Snapshot, found: Situation, shares: tuple[Share, ...], groups: Arranged) -> Iterator[Delete]:
    for share in shares:
        if share.replicas is None:
            for manifest in found.workloads[share.number].manifests:
                yield Delete(manifest, f"revision {share.number}: {share.reason}")
    yield from sharded.deletes(groups)
    yield from _forgotten(snapshot, found, shares)
    yield from _answered(snapshot, found)
    if found.serving is None or disruption_budget(found.owner, found.serving.number, found.wanted) is None:
        for budget in snapshot.owned("PodDisruptionBudget"):
            yield Delete(budget, f"{found.wanted} replicas: a budget would block node drains")


def _forgotten(snapshot: Snapshot, found: Situation, shares: tuple[Share, ...]) -> Iterator[Delete]:
    """Records beyond the limit, but for those that say what a pod that is still there takes of the budget."""
    kept = {share.number for share in shares} | {one.number for one in (found.target,) if one is not None}
    kept |= {revision_of(pod) for pod in snapshot.owned_pods()}
    limit = found.rollout.revision_history_limit
    for revision in revs.prunable(found.revisions, kept, limit):
        if revision.record is not None:
            yield Delete(revision.record, f"revision {revision.number}: more than {limit} are recorded")


def _answered(snapshot: Snapshot, found: Situation) -> Iterator[Delete]:
    """Pods that have looked a source up."""
    recorded = {revision.number for revision in found.revisions if revision.record is not None}
    for pod in resolve_pods(snapshot):
        needed = found.pending is not None and found.pending.pod is pod
        new = found.target is not None and found.target.number == revision_of(pod)
        if not is_deleting(pod) and not needed and not (new and revision_of(pod) not in recorded):
            yield Delete(pod, "its answer is recorded, or not needed any more")


def _waits(found: Situation, shares: tuple[Share, ...], groups: Arranged) -> Iterator[float]:
    """Seconds until groups are given up, until revisions that were put aside have drained, and the warm one's time."""
    for those in groups.values():
        yield from those.wakes
    for share in shares:
        revision = found.revision(share.number)
        if revision is None or share.replicas is None or not share.retired:
            continue
        yield found.drain_left(revision)
        if revision.role is Role.WARM:
            yield warm.seconds_left(found.rollout, revision, found.now)


def _soonest(waits: tuple[float, ...]) -> float | None:
    return min((wait for wait in waits if wait > 0), default=None)
