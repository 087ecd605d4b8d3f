"""The status: what is, why, and what a person does next. One line of `kubectl get` tells it all: the reason of `Ready`.

what                                    Ready    Available
all wanted replicas of spec serve       True     True
a rollout or a change of scale runs     False    True while anything serves
a candidate does not come up            False    True, the stable revision goes on
replicas: 0                             True     True
spec cannot be used                     False    True while the last good revision serves; Accepted is False
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from moorage_api.conditions import PODS_ON_THE_WAY, ConditionStatus, ConditionType, Reason
from moorage_api.status import Condition, RevisionPointers, RevisionStatus, RolloutStatus, Status
from moorage_operator.manifest import Manifest, dig
from moorage_operator.plan.findings import Finding, finding
from moorage_operator.plan.rollout import Share
from moorage_operator.plan.situation import Situation
from moorage_operator.plan.snapshot import Event, Snapshot
from moorage_operator.plan.times import from_text
from moorage_operator.render.context import Context

_MOVING: Final = frozenset({*PODS_ON_THE_WAY, Reason.ROLLING_OUT, Reason.SCALING})
_GOOD: Final = frozenset({Reason.SERVING, Reason.SCALED_TO_ZERO})


@dataclass(frozen=True)
class _Clock:
    """The conditions that were, so that a transition time changes only with the status of its condition."""

    generation: int
    now: datetime
    before: dict[str, Manifest]

    def condition(self, kind: ConditionType, *, status: bool, why: Finding) -> Condition:
        value = ConditionStatus.TRUE if status else ConditionStatus.FALSE
        before = self.before.get(kind)
        since = self.now.replace(microsecond=0)
        if before is not None and before.get("status") == value and "lastTransitionTime" in before:
            since = from_text(before["lastTransitionTime"])
        return Condition(
            type=kind,
            status=value,
            observed_generation=self.generation,
            last_transition_time=since,
            reason=why.reason,
            message=why.message,
        )


def report(
    snapshot: Snapshot, found: Situation, shares: tuple[Share, ...], refused: str, context: Context
) -> tuple[Manifest, tuple[Event, ...]]:
    """The whole status, and the events about what is new in it."""
    head = finding(found, refused, _workload_refusal(found))
    serving = sum(1 for one in found.replicas if one.ready)
    status = Status(
        observed_generation=_generation(snapshot),
        conditions=_conditions(snapshot, found, head, serving),
        url=context.gateway_url,
        ready=f"{serving}/{found.wanted}",
        replicas=len(found.replicas),
        ready_replicas=serving,
        selector=",".join(f"{name}={value}" for name, value in sorted(found.owner.labels().items())),
        revision=RevisionPointers(
            stable=found.stable.number if found.stable else None,
            candidate=found.candidate.number if found.candidate else None,
        ),
        revisions=_revisions(snapshot, found, shares),
        rollout=RolloutStatus(reason=head.reason, message=head.message) if found.candidate and found.stable else None,
    )
    return status.to_api(), _events(snapshot, head)


def _conditions(snapshot: Snapshot, found: Situation, head: Finding, serving: int) -> tuple[Condition, ...]:
    reported: Any = snapshot.reported("conditions") or ()
    clock = _Clock(_generation(snapshot), snapshot.now, {one["type"]: one for one in reported})
    available = head
    if serving:
        noun = "replica answers" if serving == 1 else "replicas answer"
        available = Finding(Reason.SERVING, f"{serving} {noun} requests.")
    return (
        clock.condition(ConditionType.ACCEPTED, status=found.invalid is None, why=_acceptance(found)),
        clock.condition(
            ConditionType.AVAILABLE,
            status=bool(serving) or head.reason == Reason.SCALED_TO_ZERO,
            why=available,
        ),
        clock.condition(ConditionType.PROGRESSING, status=head.reason in _MOVING, why=head),
        clock.condition(ConditionType.READY, status=head.reason in _GOOD, why=head),
    )


def _acceptance(found: Situation) -> Finding:
    if found.invalid is not None:
        return Finding(Reason.INVALID_SPEC, found.invalid)
    if found.unknown:
        return Finding(Reason.VALID, f"This version of the operator does not know {', '.join(found.unknown)}; ignored.")
    return Finding(Reason.VALID, "spec was understood.")


def _revisions(snapshot: Snapshot, found: Situation, shares: tuple[Share, ...]) -> tuple[RevisionStatus, ...]:
    reported: Any = snapshot.reported("revisions") or ()
    digests = {one.get("number"): one.get("modelDigest") for one in reported}
    rows = []
    for share in sorted(shares, key=lambda share: share.number):
        revision = found.revision(share.number)
        if revision is None or share.replicas is None:
            continue
        replicas = found.of(share.number)
        digest = next((one.model_digest for one in replicas if one.model_digest), digests.get(share.number))
        rows.append(
            RevisionStatus(
                number=share.number,
                weight=share.weight,
                replicas=share.replicas,
                ready=sum(1 for one in replicas if one.ready),
                model_digest=digest,
                image=revision.image,
                created=revision.created.replace(microsecond=0),
            )
        )
    return tuple(rows)


def _workload_refusal(found: Situation) -> str:
    """What kept the workload of the wanted revision from making its pods, in the API server's words."""
    workload = found.workloads.get(found.target.number) if found.target else None
    conditions = dig(workload, "status", "conditions", default=())
    failure = (one for one in conditions if one["type"] == "ReplicaFailure" and one["status"] == "True")
    return next((one.get("message", "") for one in failure), "")


def _events(snapshot: Snapshot, head: Finding) -> tuple[Event, ...]:
    """A warning when something is wrong that was not wrong, in this way, before."""
    if head.reason in _MOVING or head.reason in _GOOD:
        return ()
    reported: Any = snapshot.reported("conditions") or ()
    if any(one["type"] == ConditionType.READY and one["reason"] == head.reason for one in reported):
        return ()
    return (Event("Warning", head.reason, head.message),)


def _generation(snapshot: Snapshot) -> int:
    return int(dig(snapshot.deployment, "metadata", "generation", default=0))
