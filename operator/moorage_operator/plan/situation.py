"""The situation of one deployment: what is wanted, which revisions there are, what runs of each."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from moorage_api.llmdeployment import LLMDeployment
from moorage_api.reading import InvalidObjectError, parse
from moorage_operator.manifest import Manifest, dig, revision_of
from moorage_operator.plan import revisions as revs
from moorage_operator.plan.pods import Replica, replicas
from moorage_operator.plan.revisions import Revision
from moorage_operator.plan.rollout import Crew, may_promote
from moorage_operator.plan.snapshot import Snapshot
from moorage_operator.plan.times import from_text
from moorage_operator.render.context import Context, Owner
from moorage_operator.render.record import Role

DRAIN_SECONDS: Final = 5.0
"""How long a revision without weight keeps its pods: longer than gateways need to hear of it."""


@dataclass(frozen=True)
class Situation:
    """Stable and target are after promotion, if one is due now."""

    owner: Owner
    now: datetime
    wanted: int
    invalid: str | None
    """Why spec cannot be used; None when it can."""
    unknown: tuple[str, ...]
    """Fields of spec that this version does not know."""
    has_accelerator: str
    """The accelerators' resource; empty without any."""
    revisions: tuple[Revision, ...]
    """Recorded ones and the new one, by number."""
    stable: Revision | None
    target: Revision | None
    """What spec asks for; the stable one while spec cannot be used."""
    promoted_from: int | None
    """The revision that was stable until now; None when nothing is promoted in this plan."""
    workloads: dict[int, Manifest]
    replicas: tuple[Replica, ...]
    weights: dict[int, int]
    """As last reported."""

    @property
    def candidate(self) -> Revision | None:
        """The revision that is being rolled out."""
        return None if self.target is self.stable else self.target

    def crew(self, number: int) -> Crew:
        """What runs of a revision."""
        revision = self.revision(number)
        retired = revision is None or revision.role is Role.RETIRED
        weight = self.weights.get(number, 0)
        return Crew(
            number=number,
            replicas=int(dig(self.workloads.get(number), "spec", "replicas", default=0)),
            ready=sum(1 for one in self.of(number) if one.ready),
            weight=weight,
            retired=retired,
            drained=retired and weight == 0 and self.drain_left(revision) <= 0,
        )

    def of(self, number: int) -> tuple[Replica, ...]:
        """The replicas of a revision."""
        return tuple(one for one in self.replicas if one.revision == number)

    def revision(self, number: int) -> Revision | None:
        """A revision by its number."""
        return next((one for one in self.revisions if one.number == number), None)

    def leftovers(self) -> tuple[int, ...]:
        """Workloads of revisions that are neither stable nor wanted."""
        kept = {one.number for one in (self.stable, self.target) if one is not None}
        return tuple(sorted(set(self.workloads) - kept))

    def drain_left(self, revision: Revision | None) -> float:
        """Seconds until a retired revision may go."""
        if revision is None or not revision.since:
            return 0.0
        return (from_text(revision.since) + timedelta(seconds=DRAIN_SECONDS) - self.now).total_seconds()


def situation(snapshot: Snapshot, context: Context) -> Situation:
    """Read a snapshot."""
    owner = Owner.of(snapshot.deployment)
    deployment, unknown, invalid = _read(snapshot.deployment)
    recorded = revs.recorded(snapshot.owned("ControllerRevision"))
    workloads = {revision_of(one): one for one in snapshot.owned("Deployment") if revision_of(one)}
    stable = revs.stable_among(recorded, snapshot.reported("revision", "stable"))
    target = stable
    if deployment is not None:
        target = revs.wanted(recorded, workloads, deployment.spec, owner=owner, context=context, now=snapshot.now)
    known = recorded if target is None or target in recorded else (*recorded, target)
    found = Situation(
        owner=owner,
        now=snapshot.now,
        wanted=_wanted(snapshot.deployment, workloads, stable),
        invalid=invalid,
        unknown=unknown,
        has_accelerator=_accelerator(deployment),
        revisions=known,
        stable=stable,
        target=target,
        promoted_from=None,
        workloads=workloads,
        replicas=replicas(snapshot.owned_pods()),
        weights=_weights(snapshot),
    )
    return _promoted(found)


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


def _accelerator(deployment: LLMDeployment | None) -> str:
    accelerator = deployment.spec.accelerator if deployment is not None else None
    return accelerator.resource if accelerator is not None else ""


def _weights(snapshot: Snapshot) -> dict[int, int]:
    reported: Any = snapshot.reported("revisions") or ()
    return {one["number"]: one["weight"] for one in reported if "number" in one and "weight" in one}


def _promoted(found: Situation) -> Situation:
    """The same with the candidate as stable, if it is due."""
    candidate = found.candidate
    if candidate is None:
        return found
    stable = found.crew(found.stable.number) if found.stable else None
    if not may_promote(found.wanted, stable, found.crew(candidate.number)):
        return found
    before = found.stable.number if found.stable else 0
    return replace(found, stable=candidate, target=candidate, promoted_from=before)
