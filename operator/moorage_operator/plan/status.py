"""The status: what is, why, and what a person does next. One line of `kubectl get` tells it all: the reason of `Ready`.

what                                    Ready    Available                            Stalled
all wanted replicas of spec serve       True     True                                 False
a rollout or a change of scale runs     False    True while anything serves           False
a rollout is paused                     Unknown  True while anything serves           False
a candidate does not come up            False    True, the stable revision goes on    False while it may come
a candidate was given up                False    True, the stable revision goes on    True
replicas: 0                             True     True                                 False
spec cannot be used                     False    True while the last good one serves  True; Accepted is False
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from moorage_api.conditions import PODS_ON_THE_WAY, ConditionStatus, ConditionType, Reason
from moorage_api.status import Condition, RevisionPointers, RevisionStatus, RolloutStatus, Startup, Status
from moorage_operator.manifest import Manifest, dig
from moorage_operator.plan.decisions import announcements, decisions
from moorage_operator.plan.divide import Share
from moorage_operator.plan.finding import Finding
from moorage_operator.plan.findings import finding, not_found
from moorage_operator.plan.remembered import Row, all_remembered
from moorage_operator.plan.rollout import Verdict
from moorage_operator.plan.situation import Situation
from moorage_operator.plan.snapshot import Event, Snapshot
from moorage_operator.plan.standings import standing
from moorage_operator.plan.startup import startup
from moorage_operator.plan.telemetry import Health, Measured, health, measured
from moorage_operator.render.context import Context

_MOVING: Final = frozenset({*PODS_ON_THE_WAY, Reason.ROLLING_OUT, Reason.SCALING, Reason.RESOLVING_SOURCE})
_GOOD: Final = frozenset({Reason.SERVING, Reason.SCALED_TO_ZERO})
_PROVEN: Final = "its replicas are routable, and its gates hold"
_WAITING: Final = frozenset({Reason.PAUSED, Reason.GATEWAY_UNREACHABLE, Reason.WAITING_FOR_GPU, Reason.UNSCHEDULABLE})
"""Neither good nor wrong: something else has to happen first."""


@dataclass(frozen=True)
class Judged:
    """A situation after its verdict has come into effect, and what each revision gets."""

    found: Situation
    verdict: Verdict
    shares: tuple[Share, ...]


@dataclass(frozen=True)
class Told:
    """The whole status, the events about what is new in it, and when to look at it again."""

    status: Manifest
    events: tuple[Event, ...]
    wakes: tuple[float, ...]


@dataclass(frozen=True)
class _Clock:
    """The conditions that were, so that a transition time changes only with the status of its condition."""

    generation: int
    now: datetime
    before: dict[str, Condition]

    def condition(self, kind: ConditionType, *, status: bool | None, why: Finding) -> Condition:
        value = {True: ConditionStatus.TRUE, False: ConditionStatus.FALSE, None: ConditionStatus.UNKNOWN}[status]
        before = self.before.get(kind)
        since = self.now.replace(microsecond=0)
        if before is not None and before.status is value:
            since = before.last_transition_time
        return Condition(
            type=kind,
            status=value,
            observed_generation=self.generation,
            last_transition_time=since,
            reason=why.reason,
            message=why.message,
        )


def report(snapshot: Snapshot, judged: Judged, refused: str, context: Context) -> Told:
    """The whole status, and the events about what is new in it."""
    found, verdict, shares = judged.found, judged.verdict, judged.shares
    head = finding(found, verdict, refused)
    with_requests = {share.number for share in shares if share.weight}
    serving = sum(1 for one in found.replicas if one.ready and one.revision in with_requests)
    figures = measured(found.routing, dig(snapshot.deployment, "status", default={}), found.now)
    clock = _clock(snapshot)
    gpus = _gpus(found, clock)
    idle = {share.number for share in shares if share.retired and found.crew(share.number).kept}
    active = [one for one in found.replicas if one.revision not in idle]
    status = Status(
        observed_generation=_generation(snapshot),
        conditions=_conditions(judged, head, serving, clock, gpus),
        url=context.gateway_url,
        ready=f"{sum(1 for one in active if one.ready)}/{found.wanted}",
        replicas=len(active),
        ready_replicas=sum(1 for one in active if one.ready),
        selector=",".join(f"{name}={value}" for name, value in sorted(found.owner.labels().items())),
        revision=RevisionPointers(
            stable=found.stable.number if found.stable else None,
            candidate=found.candidate.number if found.candidate else None,
        ),
        revisions=_revisions(snapshot, found, shares),
        rollout=_rollout(snapshot, found, verdict),
        startup=_startup(snapshot, found),
        gpu=figures.gpu,
        traffic=figures.traffic,
        measured=figures.at,
    )
    decided = decisions(dig(snapshot.deployment, "status", default={}), status, found.now, _promoted(found))
    status = status.model_copy(update={"decisions": decided})
    events = (*announcements(snapshot.reported("decisions"), decided), *_events(clock, head))
    return Told(status.to_api(), events, _wakes(figures, gpus))


def _clock(snapshot: Snapshot) -> _Clock:
    reported = all_remembered(Condition, snapshot.reported("conditions"))
    return _Clock(_generation(snapshot), snapshot.now, {one.type: one for one in reported})


def _wakes(*damped: Measured | Health | None) -> tuple[float, ...]:
    return tuple(one.wake for one in damped if one is not None and one.wake is not None)


def _gpus(found: Situation, clock: _Clock) -> Health | None:
    """The health of the GPUs; None without any."""
    if found.target is None or found.target.accelerators is None:
        return None
    before = clock.before.get(ConditionType.GPU_HEALTHY)
    return health(found.routing, _without_accelerators(found), before, found.now)


def _startup(snapshot: Snapshot, found: Situation) -> Startup | None:
    replicas = found.of(found.target.number) if found.target is not None else ()
    return startup(snapshot.owned_pods(), replicas, snapshot.reported("startup"))


def _conditions(
    judged: Judged, head: Finding, serving: int, clock: _Clock, gpus: Health | None
) -> tuple[Condition, ...]:
    found, available = judged.found, head
    if serving:
        noun = "replica answers" if serving == 1 else "replicas answer"
        available = Finding(Reason.SERVING, f"{serving} {noun} requests.")
    good = None if head.reason is Reason.PAUSED else head.reason in _GOOD
    conditions = [
        clock.condition(
            ConditionType.ACCEPTED, status=found.invalid is None and found.missing is None, why=_acceptance(found)
        ),
        clock.condition(
            ConditionType.AVAILABLE,
            status=bool(serving) or head.reason == Reason.SCALED_TO_ZERO,
            why=available,
        ),
        clock.condition(ConditionType.PROGRESSING, status=head.reason in _MOVING, why=head),
        clock.condition(ConditionType.READY, status=good, why=head),
        clock.condition(ConditionType.STALLED, status=_is_stalled(found, judged.verdict, head), why=head),
    ]
    if gpus is not None:
        conditions.append(clock.condition(ConditionType.GPU_HEALTHY, status=gpus.well, why=gpus.why))
    return tuple(conditions)


def _without_accelerators(found: Situation) -> frozenset[str]:
    """Replicas whose revision asks for none, such as those that are about to be replaced by others that do."""
    revisions = {one.number for one in found.revisions if one.accelerators is None}
    return frozenset(one.uid for one in found.replicas if one.revision in revisions)


def _is_stalled(found: Situation, verdict: Verdict, head: Finding) -> bool:
    """Whether only a person brings it on: what was given up, and what is wrong in every way that waiting leaves so."""
    if head.reason in _MOVING or head.reason in _GOOD or head.reason in _WAITING:
        return False
    final = {Reason.ROLLED_BACK, Reason.INVALID_SPEC, Reason.REVISION_NOT_FOUND, Reason.WORKLOAD_REFUSED}
    crashed = found.target is not None and any(one.crashes for one in found.of(found.target.number))
    return head.reason in final or verdict.stalled or crashed


def _acceptance(found: Situation) -> Finding:
    if found.invalid is not None:
        return Finding(Reason.INVALID_SPEC, found.invalid)
    if found.missing is not None:
        return not_found(found)
    said = [f"This version of the operator does not know {', '.join(found.unknown)}; ignored."] if found.unknown else []
    said += [found.misunderstood] if found.misunderstood else []
    return Finding(Reason.VALID, " ".join(said) or "spec was understood.")


def _rollout(snapshot: Snapshot, found: Situation, verdict: Verdict) -> RolloutStatus | None:
    """What the rollout does, and the last action that was acted upon."""
    last: Any = snapshot.reported("rollout", "lastAction")
    if found.action is not None:
        revision = found.revision(found.action.number)
        acted = revision is not None and revision.standing.acted == found.action.text
        last = found.action.text if acted else last
    under_way = found.candidate is not None and found.stable is not None
    status = verdict.status if under_way and verdict.status is not None else RolloutStatus()
    status = status.model_copy(update={"last_action": last})
    return status if status != RolloutStatus() else None


def _promoted(found: Situation) -> str:
    """Why the stable revision became so. Its record knows what a person said; an action may be from long before."""
    steering = found.stable.standing.steering if found.stable is not None else ""
    if steering == "promote":
        return "a person promoted it"
    if not found.wanted:
        return "it came while there are no replicas"
    return "it has served before, and its replicas are routable" if steering == "back" else _PROVEN


def _revisions(snapshot: Snapshot, found: Situation, shares: tuple[Share, ...]) -> tuple[RevisionStatus, ...]:
    digests = {row.number: row.model_digest for row in all_remembered(Row, snapshot.reported("revisions"))}
    there = {share.number: share for share in shares if share.replicas is not None}
    if found.given_up is not None:
        there.setdefault(found.given_up.number, Share(found.given_up.number, 0, 0, "", retired=True))
    rows = []
    for number, share in sorted(there.items()):
        revision = found.revision(number)
        if revision is None:
            continue
        crew, stands = found.crew(number), standing(found, revision, share)
        told = next((one.model_digest for one in found.of(number) if one.model_digest), digests.get(number))
        rows.append(
            RevisionStatus(
                number=number,
                role=stands.role.value,
                reason=stands.reason or None,
                message=stands.message or None,
                weight=share.weight,
                replicas=share.replicas or 0,
                ready=crew.ready,
                routable=crew.reached,
                source=revision.source,
                model_digest=told or revision.digest,
                image=revision.image,
                created=revision.created.replace(microsecond=0),
            )
        )
    return tuple(rows)


def _events(clock: _Clock, head: Finding) -> tuple[Event, ...]:
    """A warning when something is wrong that was not wrong, in this way, before."""
    if head.reason in _MOVING or head.reason in _GOOD or head.reason in {Reason.PAUSED, Reason.ROLLED_BACK}:
        return ()  # that it went back is a decision, and told as one
    before = clock.before.get(ConditionType.READY)
    if before is not None and before.reason == head.reason:
        return ()
    return (Event("Warning", head.reason, head.message),)


def _generation(snapshot: Snapshot) -> int:
    return int(dig(snapshot.deployment, "metadata", "generation", default=0))
