"""The status: what is, why, and what a person does next. One line of `kubectl get` tells it all: the reason of `Ready`.

what                                    Ready    Available                            Stalled
all wanted replicas of spec serve       True     True                                 False
a rollout or a change of scale runs     False    True while anything serves           False
a rollout is paused                     Unknown  True while anything serves           False
a candidate does not come up            False    True, the stable revision goes on    False while it may come
a candidate was given up                False    True, the stable revision goes on    True
replicas: 0                             True     True                                 False
asleep: nobody asks, minReplicas is 0   True     True, a request wakes it             False
woken, or a new revision proves itself  False    True, the request waits for it       False
spec cannot be used                     False    True while the last good one serves  True; Accepted is False
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from moorage_api.conditions import PODS_ON_THE_WAY, ConditionStatus, ConditionType, Reason
from moorage_api.status import Condition, RevisionPointers, RevisionStatus, RolloutStatus, Startup, Status
from moorage_operator.manifest import Manifest, dig
from moorage_operator.plan import writers
from moorage_operator.plan.autoscaled import scaled
from moorage_operator.plan.decisions import announcements, decisions
from moorage_operator.plan.divide import Share
from moorage_operator.plan.finding import Finding
from moorage_operator.plan.findings import ASLEEP, finding, not_found
from moorage_operator.plan.remembered import Row, all_remembered
from moorage_operator.plan.rollout import Verdict
from moorage_operator.plan.scaling import Scaling, as_before, scaling
from moorage_operator.plan.situation import Situation
from moorage_operator.plan.snapshot import Event, Snapshot
from moorage_operator.plan.standings import ALONE, standing
from moorage_operator.plan.startup import startup
from moorage_operator.plan.telemetry import Health, Measured, health, measured
from moorage_operator.plan.zero import Mode
from moorage_operator.render.context import Context
from moorage_operator.render.sharding import leader_labels, pods_of

_MOVING: Final = frozenset({*PODS_ON_THE_WAY, Reason.ROLLING_OUT, Reason.SCALING, Reason.RESOLVING_SOURCE})
_GOOD: Final = frozenset({Reason.SERVING, Reason.SCALED_TO_ZERO})
_PROVEN: Final = "its replicas are routable, and its gates hold"
_WAITING: Final = frozenset(
    {
        Reason.PAUSED,
        Reason.GATEWAY_UNREACHABLE,
        Reason.WAITING_FOR_GPU,
        Reason.WAITING_FOR_BUDGET,
        Reason.UNSCHEDULABLE,
    }
)
"""Neither good nor wrong: something else has to happen first."""
_ON_ITS_WAY: Final = Finding(Reason.SCALING, "A replica is on its way, and requests wait for it.")


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
    scale = _scaling(snapshot, found, clock)
    idle = {share.number for share in shares if share.retired and found.crew(share.number).kept}
    active = [one for one in found.replicas if one.revision not in idle]
    status = Status(
        observed_generation=_generation(snapshot),
        conditions=(*_conditions(judged, head, serving, clock), *_special(clock, gpus, scale)),
        url=context.gateway_url,
        ready=f"{sum(1 for one in active if one.ready)}/{found.wanted}",
        replicas=len(active),
        ready_replicas=sum(1 for one in active if one.ready),
        selector=_selector(found),
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
    before = dig(snapshot.deployment, "status", default={})
    decided = decisions(before, status, found.now, _promoted(found), _why_scaled(snapshot, found, before))
    status = status.model_copy(update={"decisions": decided})
    events = (*announcements(snapshot.reported("decisions"), decided), *_events(clock, head))
    return Told(status.to_api(), events, _wakes(figures, gpus, scale))


def _selector(found: Situation) -> str:
    """Of one pod of each replica: an autoscaler that measures pods takes their number for that of replicas."""
    labels = found.owner.labels()
    if found.serving is not None and pods_of(found.serving.template) > 1:
        labels |= leader_labels(found.serving.template)
    return ",".join(f"{name}={value}" for name, value in sorted(labels.items()))


def _why_scaled(snapshot: Snapshot, found: Situation, before: Manifest) -> str:
    """What changed the number that is wanted, with its inputs; nothing where it is as it was."""
    was = str(before.get("ready", "")).rpartition("/")[2]
    if was in ("", str(found.wanted)):
        return ""
    if found.scale.reason and (found.scale.asleep or was == "0"):
        return found.scale.reason
    told = writers.told_by(snapshot.deployment, snapshot.autoscaler)
    return f"{told}; {found.cut}" if found.cut else told


def _clock(snapshot: Snapshot) -> _Clock:
    reported = all_remembered(Condition, snapshot.reported("conditions"))
    return _Clock(_generation(snapshot), snapshot.now, {one.type: one for one in reported})


def _wakes(*damped: Measured | Health | Scaling | None) -> tuple[float, ...]:
    return tuple(one.wake for one in damped if one is not None and one.wake is not None)


def _gpus(found: Situation, clock: _Clock) -> Health | None:
    """The health of the GPUs; None without any."""
    if found.target is None or found.target.accelerators is None:
        return None
    before = clock.before.get(ConditionType.GPU_HEALTHY)
    return health(found.routing, _without_accelerators(found), before, found.now)


def _scaling(snapshot: Snapshot, found: Situation, clock: _Clock) -> Scaling | None:
    """Whether the number of replicas follows the load; None where it is not to."""
    wish, before = scaled(snapshot, found), clock.before.get(ConditionType.SCALING_ACTIVE)
    if wish is not None:
        return scaling(wish, before, found.now)
    return as_before(before) if found.invalid is not None and before is not None else None


def _startup(snapshot: Snapshot, found: Situation) -> Startup | None:
    """Of what requests wait for: of the candidate only where something serves already."""
    serves = any(one.ready for one in found.replicas)
    awaited = (found.candidate or found.stable,) if serves else (found.stable, found.candidate)
    replicas = tuple(one for each in awaited if each is not None for one in found.of(each.number))
    begins = bool(found.wanted) and not replicas and not serves
    return startup(snapshot.owned_pods(), replicas, snapshot.reported("startup"), found.now if begins else None)


def _conditions(judged: Judged, head: Finding, serving: int, clock: _Clock) -> tuple[Condition, ...]:
    found, available = judged.found, head
    wakeable = _is_wakeable(found, head)
    if wakeable and head.reason not in _MOVING:
        available = Finding(Reason.SCALED_TO_ZERO, ASLEEP) if found.scale.asleep else _ON_ITS_WAY
    if serving:
        noun = "replica answers" if serving == 1 else "replicas answer"
        available = Finding(Reason.SERVING, f"{serving} {noun} requests.")
    stopped = head.reason is Reason.SCALED_TO_ZERO and found.on_trial is not None and not found.scale.asleep
    good = None if stopped or head.reason is Reason.PAUSED else head.reason in _GOOD
    return (
        clock.condition(
            ConditionType.ACCEPTED, status=found.invalid is None and found.missing is None, why=_acceptance(found)
        ),
        clock.condition(
            ConditionType.AVAILABLE,
            status=bool(serving) or wakeable or head.reason == Reason.SCALED_TO_ZERO,
            why=available,
        ),
        clock.condition(ConditionType.PROGRESSING, status=head.reason in _MOVING, why=head),
        clock.condition(ConditionType.READY, status=good, why=head),
        clock.condition(ConditionType.STALLED, status=_is_stalled(found, judged.verdict, head), why=head),
    )


def _special(clock: _Clock, gpus: Health | None, scale: Scaling | None) -> Iterator[Condition]:
    """Those that not every deployment has."""
    if gpus is not None:
        yield clock.condition(ConditionType.GPU_HEALTHY, status=gpus.well, why=gpus.why)
    if scale is not None:
        yield clock.condition(ConditionType.SCALING_ACTIVE, status=scale.active, why=scale.why)


def _is_wakeable(found: Situation, head: Finding) -> bool:
    """Whether a request that comes now is answered, though it has to wait for a replica first."""
    if found.scale.asleep or found.scale.proves:
        return True
    if found.stable is None or found.scale.mode not in {Mode.AWAKE, Mode.IDLE}:
        return False
    in_trouble = any(one.trouble is not None for one in found.of(found.stable.number))
    return not in_trouble and (head.reason in _MOVING or found.given_up is not None)


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
    said += [one for one in (found.misunderstood, found.advice) if one]
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
    if steering == ALONE:
        return "one replica of it is routable; nobody asks for the model, so nothing was compared"
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
