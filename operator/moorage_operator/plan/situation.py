"""The situation of one deployment: what is wanted, which revisions there are, what runs of each."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from moorage_api import names
from moorage_api.advice import advice
from moorage_api.autoscaling import Autoscaling
from moorage_api.duration import duration_value
from moorage_api.llmdeployment import LLMDeployment
from moorage_api.reading import InvalidObjectError, parse
from moorage_api.rollout import Rollout
from moorage_api.status import RolloutStatus
from moorage_operator.manifest import GROUP_KINDS, Manifest, dig
from moorage_operator.plan import actions, warm, writers, zero
from moorage_operator.plan import revisions as revs
from moorage_operator.plan.actions import Action
from moorage_operator.plan.budgeting import Ledger, ledger
from moorage_operator.plan.demand import demand
from moorage_operator.plan.divide import Crew
from moorage_operator.plan.groups import Group, groups, replicas
from moorage_operator.plan.nodes import Nodes
from moorage_operator.plan.pods import Replica
from moorage_operator.plan.remembered import Row, all_remembered, remembered
from moorage_operator.plan.revisions import Revision
from moorage_operator.plan.routable import Routing
from moorage_operator.plan.snapshot import Snapshot
from moorage_operator.plan.target import Pending, Target, target, updated
from moorage_operator.plan.times import as_text, from_text
from moorage_operator.plan.workloads import Workload, workloads
from moorage_operator.plan.zero import Mode, Scale
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
    """Replicas that shall serve: `scale.wanted`."""
    scale: Scale
    """Why so many, and what may change that."""
    autoscaling: Autoscaling | None
    """None without, and while spec cannot be used."""
    rollout: Rollout
    invalid: str | None
    """Why spec cannot be used; None when it can."""
    unknown: tuple[str, ...]
    """Fields of spec that this version does not know."""
    advice: str
    """What spec pays for without use; empty where there is nothing."""
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
    workloads: dict[int, Workload]
    """What runs of each revision that anything runs of."""
    groups: dict[int, tuple[Group, ...]]
    """Of each revision whose replicas are several pods."""
    group_kind: str
    """What a new group of pods is made as."""
    told: Mapping[str, str]
    """Why controllers make no pods, by the uid of their workload."""
    replicas: tuple[Replica, ...]
    weights: dict[int, int]
    """As last reported."""
    routing: Routing
    ledger: Ledger
    """The budget of accelerators, and who has how much of it."""
    cut: str
    """Why fewer are wanted than spec.replicas says; empty where that is not so."""
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
            replicas=self.workloads.get(number, Workload()).replicas,
            ready=sum(1 for one in there if one.ready),
            reached=self.routing.reached(there),
            relied_on=self.routing.relied_on(there),
            weight=weight,
            retired=retired,
            drained=retired and self._drained(number, weight, revision),
            failed=role is Role.FAILED or bool(role is Role.RETIRED and revision and revision.standing.reason),
            kept=self._kept(revision),
        )

    @property
    def size(self) -> int:
        """Replicas of the candidate that take the place of all: fewer than serve where it costs more of a budget."""
        most = self.ledger.most((self.candidate.number,)) if self.candidate is not None else None
        return self.wanted if most is None else min(self.wanted, most)

    @property
    def on_trial(self) -> Revision | None:
        """The candidate, where another revision is stable: what spec asks for has still to be proven."""
        return self.candidate if self.stable is not None else None

    def of(self, number: int) -> tuple[Replica, ...]:
        """The replicas of a revision."""
        return tuple(one for one in self.replicas if one.revision == number)

    def refusal(self) -> str:
        """What kept the workload of the wanted revision from making its pods, in the API server's words."""
        workload = self.workloads.get(self.target.number) if self.target is not None else None
        return workload.refusal(self.told) if workload is not None else ""

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

    def at_zero(self) -> "Situation":
        """The same once it has fallen asleep; what sleeps already goes on doing so."""
        found = replace(self, wanted=0, scale=zero.fallen_asleep(self.scale))
        if found.stable is None or found.stable.standing.asleep:
            return found
        slept = replace(found.stable.standing, asleep=as_text(found.now), woken="")
        return found.with_revision(replace(found.stable, standing=slept))

    def would_keep(self, revision: Revision) -> bool:
        """Whether a revision that is not stable any more would be kept warm."""
        there = bool(self.crew(revision.number).replicas)
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
    joined = replicas(snapshot.owned_pods())
    sets = [one for kind in GROUP_KINDS for one in snapshot.owned(kind)]
    grouped = groups(sets, snapshot.children.get("Pod", ()), joined)
    running = workloads(snapshot.owned("Deployment"), grouped)
    stable = revs.stable_among(recorded, snapshot.reported("revision", "stable"))
    asked = Target(stable)
    if deployment is not None:
        asked = target(snapshot, deployment.spec, recorded, running, context)
    wish, misunderstood = actions.wish(snapshot.deployment)
    found = Situation(
        owner=Owner.of(snapshot.deployment),
        now=snapshot.now,
        wanted=0,
        scale=Scale(_wanted(snapshot.deployment, running, stable)),
        autoscaling=deployment.spec.autoscaling if deployment is not None else None,
        rollout=deployment.spec.rollout if deployment is not None else Rollout(),
        invalid=invalid,
        unknown=unknown,
        advice=advice(deployment.spec) if deployment is not None else "",
        missing=asked.missing,
        misunderstood=misunderstood,
        action=wish,
        accelerators_short=snapshot.accelerators_short,
        nodes=snapshot.nodes,
        revisions=recorded if asked.revision is None else updated(recorded, asked.revision),
        stable=stable,
        target=asked.revision or (stable if asked.pending is None or stable is not None else None),
        pending=asked.pending,
        workloads=running,
        groups=grouped,
        group_kind=snapshot.group_kind,
        told=snapshot.told,
        replicas=joined,
        weights=_weights(snapshot),
        routing=Routing(snapshot.gateways),
        ledger=Ledger(),
        cut="",
        before=RolloutStatus(),
    )
    found = _bounded(_acted(_tried(found, goes_back=asked.goes_back)), snapshot)
    found = _scaled(found, snapshot, readable=deployment is not None)
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


def _bounded(found: Situation, snapshot: Snapshot) -> Situation:
    """The same with the budget drawn up, and no more wanted than it allows; also while spec cannot be used."""
    limit = dig(snapshot.deployment, "spec", "autoscaling", "budget", "accelerators")
    asked = {number: running.made for number, running in found.workloads.items()}
    drawn = ledger(limit if isinstance(limit, int) else None, found.revisions, asked, snapshot.owned_pods())
    # One on trial takes nothing away by costing more: how many it may be counts once it is stable.
    most = drawn.most((found.serving.number,)) if found.serving is not None else None
    wish = found.scale.wanted
    if most is None or wish <= most:
        return replace(found, ledger=drawn)
    cut = f"the budget of {limit} accelerators allows {most} of {wish} replicas"
    return replace(found, ledger=drawn, cut=cut, scale=Scale(most))


def _scaled(found: Situation, snapshot: Snapshot, *, readable: bool) -> Situation:
    """The same once it is decided how many replicas shall serve; awake, where it was woken."""
    stable, candidate = found.stable, found.candidate
    inputs = zero.Inputs(
        replicas=found.scale.wanted,
        autoscaling=found.autoscaling,
        written=writers.written(snapshot.deployment),
        content=writers.is_content(snapshot.autoscaler),
        readable=readable,
        through_gateways=found.routing.gateways is not None,
        demand=demand(found.routing),
        stable=stable.standing if stable is not None else None,
        candidate=candidate.standing if candidate is not None else None,
        there=found.replicas,
        running=max((found.crew(one.number).replicas for one in (stable, candidate) if one is not None), default=0),
        patience=duration_value(found.rollout.progress_deadline),
        now=found.now,
        uid=found.owner.uid,
    )
    scale = zero.decide(inputs)
    found = replace(found, wanted=scale.wanted, scale=scale)
    if stable is None or not stable.standing.asleep or scale.asleep or scale.proves:
        return found
    woken = as_text(found.now) if scale.mode is Mode.AWAKE else ""
    return found.with_revision(replace(stable, standing=replace(stable.standing, asleep="", woken=woken)))


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
    """The strategy of this rollout: what has served before needs no steps, nor does what nobody asks for."""
    back = found.candidate is not None and found.candidate.standing.goes_back
    return "RollingUpdate" if back or found.scale.proves else found.rollout.strategy


def _is(revision: Revision | None, number: int) -> bool:
    return revision is not None and revision.number == number


def _read(raw: Manifest) -> tuple[LLMDeployment | None, tuple[str, ...], str | None]:
    try:
        parsed = parse(raw)
    except InvalidObjectError as error:
        return None, (), str(error)
    return parsed.deployment, parsed.unknown_fields, None


def _wanted(raw: Manifest, running: dict[int, Workload], stable: Revision | None) -> int:
    """spec.replicas; while that is unusable, what runs already."""
    replicas = dig(raw, "spec", "replicas", default=1)
    if isinstance(replicas, int) and replicas >= 0:
        return replicas
    return running.get(stable.number, Workload()).replicas if stable is not None else 0


def _weights(snapshot: Snapshot) -> dict[int, int]:
    return {row.number: row.weight for row in all_remembered(Row, snapshot.reported("revisions"))}
