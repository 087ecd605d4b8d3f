"""Revisions: what a replica is made of, recorded once and compared by meaning.

A spec that means the same as a recorded one *is* that revision, whatever its number: going back to an earlier spec
brings the earlier revision back, and an upgrade of the operator makes none. What is not part of a revision: how many
replicas, and under which name clients know the model.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError

from moorage_api.llmdeployment import Spec
from moorage_api.quantity import quantity_value
from moorage_operator.manifest import Manifest, dig, label_of, revision_of
from moorage_operator.plan.times import as_text, from_text
from moorage_operator.render.context import Context, Owner
from moorage_operator.render.pod import pod_template
from moorage_operator.render.record import ROLE_LABEL, ROLE_SINCE, Role

HISTORY_LIMIT: Final = 10
_NOT_MADE_OF: Final = frozenset({"replicas", "rollout", "rollbackTo"})
"""How many, and how they come to be: parts of spec that make no revision."""


@dataclass(frozen=True)
class Revision:
    """One revision, recorded or about to be."""

    number: int
    role: Role
    since: str
    """When it got that role (RFC 3339)."""
    data: Manifest
    """`spec`: the part of spec that makes a revision. `template`: its pods, as rendered when it was made."""
    created: datetime
    record: Manifest | None = None
    """The live ControllerRevision; None when the revision is new."""

    @property
    def template(self) -> Manifest:
        """The pod template."""
        template: Manifest = self.data["template"]
        return template

    @property
    def image(self) -> str | None:
        """The engine's image."""
        containers = dig(self.template, "spec", "containers", default=({},))
        image = containers[0].get("image")
        return str(image) if image else None


def recorded(records: Iterable[Manifest]) -> tuple[Revision, ...]:
    """The stored revisions by number. A record that lost its template cannot be served from and does not count."""
    revisions = [
        Revision(
            number=revision_of(record),
            role=_role(record),
            since=str(dig(record, "metadata", "annotations", ROLE_SINCE, default="")),
            data=record["data"],
            created=from_text(record["metadata"]["creationTimestamp"]),
            record=record,
        )
        for record in records
        if revision_of(record) and dig(record, "data", "template") is not None
    ]
    return tuple(sorted(revisions, key=lambda revision: revision.number))


def stable_among(revisions: tuple[Revision, ...], reported: object) -> Revision | None:
    """The revision that holds the traffic: the one that was labelled so last.

    Two may be labelled stable when the operator died between the two writes of a promotion. Without any label (a
    restore of the object alone) what the status last `reported` counts.
    """
    labelled = [revision for revision in revisions if revision.role is Role.STABLE]
    if labelled:
        return max(labelled, key=lambda revision: (revision.since, revision.number))
    return next((revision for revision in revisions if revision.number == reported), None)


def wanted(
    revisions: tuple[Revision, ...],
    taken: Iterable[int],
    spec: Spec,
    *,
    owner: Owner,
    context: Context,
    now: datetime,
) -> Revision:
    """The revision that spec asks for: a recorded one that means the same, else a new one.

    `taken` are further numbers that are in use; a number never comes twice, since the newest record is never pruned.
    """
    makings = makings_of(spec)
    meaning = _meaning(spec)
    for revision in reversed(revisions):
        if _recorded_meaning(revision) == meaning:
            return revision
    number = max([0, *taken, *(revision.number for revision in revisions)]) + 1
    data = {"spec": makings, "template": pod_template(owner, number, spec, context)}
    return Revision(number, Role.CANDIDATE, as_text(now), data, now)


def makings_of(spec: Spec) -> dict[str, Any]:
    """The part of spec that makes a revision, as it is recorded."""
    makings = {name: value for name, value in spec.to_api().items() if name not in _NOT_MADE_OF}
    makings["model"] = {name: value for name, value in makings["model"].items() if name != "servedName"}
    return makings


def prunable(revisions: tuple[Revision, ...], kept: frozenset[int]) -> tuple[Revision, ...]:
    """The records beyond the limit: those that were retired first, but never one in `kept` nor the newest number."""
    newest = max((revision.number for revision in revisions), default=0)
    old = [revision for revision in revisions if revision.number not in kept and revision.number != newest]
    old.sort(key=lambda revision: (revision.since, revision.number))
    return tuple(old[: max(0, len(revisions) - HISTORY_LIMIT)])


def _role(record: Manifest) -> Role:
    """The labelled one; a record that lost its label, as in a restore, is neither stable nor told to go."""
    label = label_of(record, ROLE_LABEL)
    return next((role for role in Role if role == label), Role.CANDIDATE)


def _recorded_meaning(revision: Revision) -> Any:
    """A stored spec, read by this version's model so that later defaults are on both sides; None if unreadable."""
    try:
        return _meaning(Spec.model_validate(revision.data["spec"]))
    except (ValidationError, KeyError):
        return None


def _meaning(spec: Spec) -> Any:
    """A form in which specs that mean the same are equal: `1000m` is `1`, and the order of variables is nothing."""
    meaning = makings_of(spec)
    meaning["engine"] = {**meaning["engine"], "env": {variable.name: variable.value for variable in spec.engine.env}}
    resources = meaning.get("resources", {})
    meaning["resources"] = {
        kind: {name: quantity_value(str(amount)) for name, amount in amounts.items()}
        for kind, amounts in resources.items()
        if amounts
    }
    accelerator = meaning.get("accelerator")
    if accelerator is not None:
        memory = accelerator.get("minMemory")
        smallest = None if memory is None else quantity_value(memory)
        products = sorted(accelerator.get("products", ()))
        meaning["accelerator"] = {**accelerator, "products": products, "minMemory": smallest}
    return meaning
