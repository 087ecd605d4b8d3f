"""The situation of one deployment: what is wanted, which revisions there are, what runs of each."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from moorage_api import names
from moorage_api.llmdeployment import LLMDeployment
from moorage_api.reading import InvalidObjectError, parse
from moorage_api.rollout import Rollout
from moorage_api.status import RolloutStatus
from moorage_operator.manifest import Manifest, dig, revision_of
from moorage_operator.plan import actions, warm
from moorage_operator.plan import revisions as revs
from moorage_operator.plan.actions import Action
from moorage_operator.plan.divide import Crew
from moorage_operator.plan.nodes import Nodes
from moorage_operator.plan.pods import Replica, replicas
from moorage_operator.plan.remembered import Row, all_remembered, remembered
from moorage_operator.plan.revisions import Revision
from moorage_operator.plan.routable import Routing
from moorage_operator.plan.snapshot import Snapshot
from moorage_operator.plan.target import Pending, Target, target, updated
from moorage_operator.plan.times import from_text
from moorage_operator.render.context import Context, Owner
from moorage_operator.render.record import Role

DRAIN_SECONDS: Final = 5.0
"""How long a revision without weight keeps its pods: longer than gateways need to hear of it."""
_GONE: Final = frozenset({Role.RETIRED, Role.WARM, Role.FAILED})


@dataclass(frozen=True)
class Situation:
    """As it is before the rollout has been judged; the effects of a person's action are in it already."""

    owner: Owner
    now: datetime
    wanted: int
    rollout: Rollout
    invalid: str | None
    """Why spec cannot be used; None when it can."""
    unknown: tuple[str, ...]
    """Fields of spec that this version does not know."""
    missing: int | None
    """The revision of spec.rollbackTo, when it is not remembered."""
    misunderstood: str
    """What is wrong with the action that a person asked for; empty when nothing is."""
    action: Action | None
    accelerators_short: bool
    """Whether somebody of the namespace waits for some: then nothing is kept warm."""
    nodes: Nodes | None
    """What nodes have, where somebody waits for it."""
    revisions: tuple[Revision, ...]
    """Recorded ones and the new one, by number."""
    stable: Revision | None
    target: Revision | None
    """What spec asks for; the stable one while spec cannot be used."""
    pending: Pending | None
    """What spec asks for, while its source is looked up."""
    workloads: dict[int, Manifest]
    replicas: tuple[Replica, ...]
    weights: dict[int, int]
    """As last reported."""
    routing: Routing
    before: RolloutStatus
    """What was last reported of the candidate's rollout; nothing when that was another candidate."""

    @property
    def candidate(self) -> Revision | None:
        """The revision that is being rolled out."""
        if self.target is None or self.target.role is Role.FAILED:
            return None
        return None if self.stable is not None and self.target.number == self.stable.number else self.target

    @property
    def given_up(self) -> Revision | None:
        """The revision that spec asks for, when it was given up."""
        return self.target if self.target is not None and self.target.role is Role.FAILED else None

    @property
    def serving(self) -> Revision | None:
        """The revision that the Service points at: the stable one, or the first one on its way."""
        return self.stable or self.candidate

    def crew(self, number: int) -> Crew:
        """What runs of a revision."""
        revision = self.revision(number)
        role = revision.role if revision is not None else Role.RETIRED
        there = self.of(number)
        weight = self.weights.get(number, 0)
        retired = role in _GONE
        return Crew(
            number=number,
            replicas=int(dig(self.workloads.get(number), "spec", "replicas", default=0)),
            ready=sum(1 for one in there if one.ready),
            reached=self.routing.reached(there),
            relied_on=self.routing.relied_on(there),
            weight=weight,
            retired=retired,
            drained=retired and self._drained(number, weight, revision),
            failed=role is Role.FAILED or bool(role is Role.RETIRED and revision and revision.standing.reason),
            kept=self._kept(revision),
        )

    def of(self, number: int) -> tuple[Replica, ...]:
        """The replicas of a revision."""
        return tuple(one for one in self.replicas if one.revision == number)

    def refusal(self) -> str:
        """What kept the workload of the wanted revision from making its pods, in the API server's words."""
        workload = self.workloads.get(self.target.number) if self.target is not None else None
        conditions = dig(workload, "status", "conditions", default=())
        failure = (one for one in conditions if one["type"] == "ReplicaFailure" and one["status"] == "True")
        return next((one.get("message", "") for one in failure), "")

    def revision(self, number: int) -> Revision | None:
        """A revision by its number."""
        return next((one for one in self.revisions if one.number == number), None)

    def leftovers(self) -> tuple[int, ...]:
        """Workloads of revisions that are neither stable nor wanted."""
        kept = {one.number for one in (self.stable, self.candidate) if one is not None}
        return tuple(sorted(set(self.workloads) - kept))

    def drain_left(self, revision: Revision | None) -> float:
        """Seconds until a retired revision may go."""
        if revision is None or not revision.standing.since:
            return 0.0
        end = from_text(revision.standing.since) + timedelta(seconds=DRAIN_SECONDS)
        return (end - self.now).total_seconds()

    def with_revision(self, changed: Revision) -> "Situation":
        """The same with another standing of one revision."""
        return replace(
            self,
            revisions=updated(self.revisions, changed),
            stable=changed if _is(self.stable, changed.number) else self.stable,
            target=changed if _is(self.target, changed.number) else self.target,
        )

    def would_keep(self, revision: Revision) -> bool:
        """Whether a revision that is not stable any more would be kept warm."""
        there = revision.number in self.workloads
        return there and bool(warm.kept(self.rollout, self.wanted, short=self.accelerators_short))

    def _drained(self, number: int, weight: int, revision: Revision | None) -> bool:
        told = all(gateway.of(number).weight == 0 for gateway in self.routing.answering)
        return told and weight == 0 and self.drain_left(revision) <= 0

    def _kept(self, revision: Revision | None) -> int:
        stable = self.stable.number if self.stable is not None else None
        if revision is None or revision != warm.warm(self.revisions, stable):
            return 0
        if warm.seconds_left(self.rollout, revision, self.now) <= 0:
            return 0
        return warm.kept(self.rollout, self.wanted, short=self.accelerators_short)


def situation(snapshot: Snapshot, context: Context) -> Situation:
    """Read a snapshot."""
    deployment, unknown, invalid = _read(snapshot.deployment)
    recorded = revs.recorded(snapshot.owned("ControllerRevision"))
    workloads = {revision_of(one): one for one in snapshot.owned("Deployment") if revision_of(one)}
    stable = revs.stable_among(recorded, snapshot.reported("revision", "stable"))
    asked = Target(stable)
    if deployment is not None:
        asked = target(snapshot, deployment.spec, recorded, workloads, context)
    wish, misunderstood = actions.wish(snapshot.deployment)
    found = Situation(
        owner=Owner.of(snapshot.deployment),
        now=snapshot.now,
        wanted=_wanted(snapshot.deployment, workloads, stable),
        rollout=deployment.spec.rollout if deployment is not None else Rollout(),
        invalid=invalid,
        unknown=unknown,
        missing=asked.missing,
        misunderstood=misunderstood,
        action=wish,
        accelerators_short=snapshot.accelerators_short,
        nodes=snapshot.nodes,
        revisions=recorded if asked.revision is None else updated(recorded, asked.revision),
        stable=stable,
        target=asked.revision or (stable if asked.pending is None or stable is not None else None),
        pending=asked.pending,
        workloads=workloads,
        replicas=replicas(snapshot.owned_pods()),
        weights=_weights(snapshot),
        routing=Routing(snapshot.gateways),
        before=RolloutStatus(),
    )
    found = _acted(_tried(found, goes_back=asked.goes_back))
    misunderstood = found.misunderstood or _concerns_nothing(snapshot, found)
    return replace(found, misunderstood=misunderstood, before=_before(snapshot, found))


def _tried(found: Situation, *, goes_back: bool) -> Situation:
    """The target as a candidate at the beginning of its rollout, where it took no part before."""
    target = found.target
    if target is None or _is(found.stable, target.number) or target.role in {Role.CANDIDATE, Role.FAILED}:
        return found
    proven = goes_back or target.role in {Role.WARM, Role.STABLE}
    standing = actions.afresh(target.standing, found.now, "back" if proven else "")
    return found.with_revision(replace(target, standing=standing))


def _acted(found: Situation) -> Situation:
    """The same once the person's action is done."""
    revision = found.revision(found.action.number) if found.action is not None else None
    if revision is None or found.action is None:
        return found
    under_way = found.stable is not None and _is(found.candidate, revision.number)
    standing = actions.done(found.action, revision.standing, found.now, under_way=under_way)
    return found.with_revision(replace(revision, standing=standing))


def _concerns_nothing(snapshot: Snapshot, found: Situation) -> str:
    """That there is no such revision as a person named; what was acted upon may have been forgotten since."""
    action = found.action
    if action is None or found.revision(action.number) is not None:
        return ""
    if snapshot.reported("rollout", "lastAction") == action.text:
        return ""
    known = ", ".join(str(one.number) for one in found.revisions) or "none"
    return f"The annotation {names.ACTION_ANNOTATION} names revision {action.number}; there are {known}."


def _before(snapshot: Snapshot, found: Situation) -> RolloutStatus:
    reported = snapshot.reported("rollout")
    if found.candidate is None or snapshot.reported("revision", "candidate") != found.candidate.number:
        return RolloutStatus()
    before = remembered(RolloutStatus, reported)
    if before is None or before.began is None or before.began != from_text(found.candidate.standing.since):
        return RolloutStatus()  # an earlier try of the same revision, or words of another version: begin again
    return before if before.strategy == strategy(found) else RolloutStatus(progress=before.progress)


def strategy(found: Situation) -> str:
    """The strategy of this rollout: going back to what has served before needs no steps."""
    back = found.candidate is not None and found.candidate.standing.goes_back
    return "RollingUpdate" if back else found.rollout.strategy


def _is(revision: Revision | None, number: int) -> bool:
    return revision is not None and revision.number == number


def _read(raw: Manifest) -> tuple[LLMDeployment | None, tuple[str, ...], str | None]:
    try:
        parsed = parse(raw)
    except InvalidObjectError as error:
        return None, (), str(error)
    return parsed.deployment, parsed.unknown_fields, None


def _wanted(raw: Manifest, workloads: dict[int, Manifest], stable: Revision | None) -> int:
    """spec.replicas; while that is unusable, what runs already."""
    replicas = dig(raw, "spec", "replicas", default=1)
    if isinstance(replicas, int) and replicas >= 0:
        return replicas
    return int(dig(workloads.get(stable.number) if stable else None, "spec", "replicas", default=0))


def _weights(snapshot: Snapshot) -> dict[int, int]:
    return {row.number: row.weight for row in all_remembered(Row, snapshot.reported("revisions"))}
