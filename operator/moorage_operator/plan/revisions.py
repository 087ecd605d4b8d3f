"""Revisions: what a replica is made of, recorded once and compared by meaning.

A spec that means the same as a recorded one *is* that revision, whatever its number: going back to an earlier spec
brings the earlier revision back, and an upgrade of the operator makes none. What is not part of a revision: how many
replicas, and under which name clients know the model.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError

from moorage_api.llmdeployment import Spec
from moorage_api.quantity import quantity_value
from moorage_api.sharding import Sharding
from moorage_operator.manifest import Manifest, dig, revision_of
from moorage_operator.plan.accelerators import Accelerators
from moorage_operator.plan.times import as_text, from_text
from moorage_operator.render.context import Context, Owner, Resolved
from moorage_operator.render.pod import pod_template
from moorage_operator.render.record import Role, Standing

_NOT_MADE_OF: Final = frozenset({"replicas", "autoscaling", "rollout", "rollbackTo"})
"""How many, and how they come to be: parts of spec that make no revision."""


@dataclass(frozen=True)
class Revision:
    """One revision, recorded or about to be."""

    number: int
    standing: Standing
    data: Manifest
    """`spec`: the part of spec that makes a revision. `source`: its model's source, pinned, where spec names something
    movable; `digest`: that of its files, where it was looked up. `template`: its pods, as rendered when it was made."""
    created: datetime
    record: Manifest | None = None
    """The live ControllerRevision; None when the revision is new."""

    @property
    def role(self) -> Role:
        """What it is to its deployment."""
        return self.standing.role

    @property
    def recorded(self) -> Standing | None:
        """What its record says it is, before this look; None of one that is about to be made."""
        return None if self.record is None else Standing.of(self.record)

    @property
    def source(self) -> str:
        """Where its model comes from, as exactly as is known."""
        return str(self.data.get("source") or dig(self.data, "spec", "model", "source", default=""))

    @property
    def digest(self) -> str | None:
        """The digest of its model's files, where that is known before a replica has fetched them."""
        found = self.data.get("digest") or dig(self.data, "spec", "model", "digest")
        return str(found) if found else None

    @property
    def template(self) -> Manifest:
        """The pod template."""
        template: Manifest = self.data["template"]
        return template

    @property
    def accelerators(self) -> Accelerators | None:
        """What each of its pods is given, whatever spec asks for by now; None where they have none."""
        return Accelerators.of(self.data)

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
            standing=Standing.of(record),
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
        return max(labelled, key=lambda revision: (revision.standing.since, revision.number))
    return next((revision for revision in revisions if revision.number == reported), None)


def meant_by(revisions: tuple[Revision, ...], spec: Spec) -> Revision | None:
    """The recorded revision that spec asks for, if there is one."""
    makings = makings_of(spec)
    same = next((revision for revision in reversed(revisions) if revision.data.get("spec") == makings), None)
    if same is not None:
        return same  # as it nearly always is; reading every record anew would cost more than all the rest
    meaning = _meaning(spec)
    return next((revision for revision in reversed(revisions) if _recorded_meaning(revision) == meaning), None)


def next_number(revisions: tuple[Revision, ...], taken: Iterable[int]) -> int:
    """The number of the next revision; none comes twice, since the newest record is never pruned.

    `taken` are further numbers that are in use.
    """
    return max([0, *taken, *(revision.number for revision in revisions)]) + 1


def made(
    number: int, spec: Spec, resolved: Resolved | None, *, owner: Owner, context: Context, now: datetime
) -> Revision:
    """A new revision of `spec`, with the pods that it will always have."""
    data: dict[str, Any] = {"spec": makings_of(spec)}
    if resolved is not None:
        data["source"] = resolved.source
        if resolved.digest is not None:
            data["digest"] = resolved.digest
    data["template"] = pod_template(owner, number, spec, context, resolved)
    return Revision(number, Standing(Role.CANDIDATE, as_text(now)), data, now)


def makings_of(spec: Spec) -> dict[str, Any]:
    """The part of spec that makes a revision, as it is recorded."""
    makings = {name: value for name, value in spec.to_api().items() if name not in _NOT_MADE_OF}
    makings["model"] = {name: value for name, value in makings["model"].items() if name != "servedName"}
    if spec.sharding == Sharding():
        del makings["sharding"]  # as records have it that are older than the field: so each is still found at once
    return makings


def prunable(revisions: tuple[Revision, ...], kept: Collection[int], limit: int) -> tuple[Revision, ...]:
    """The records beyond the limit: those that never were stable, then those whose last promotion is longest ago.

    Never one in `kept`, nor the newest number.
    """
    newest = max((revision.number for revision in revisions), default=0)
    old = [revision for revision in revisions if revision.number not in kept and revision.number != newest]
    old.sort(key=lambda revision: (revision.standing.promoted, revision.number))
    return tuple(old[: max(0, len(revisions) - limit)])


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
    meaning["podTemplate"] = _filled(meaning.get("podTemplate", {}))
    accelerator = meaning.get("accelerator")
    if accelerator is not None:
        memory = accelerator.get("minMemory")
        smallest = None if memory is None else quantity_value(memory)
        products = sorted(accelerator.get("products", ()))
        meaning["accelerator"] = {**accelerator, "products": products, "minMemory": smallest}
    return meaning


def _filled(value: Any) -> Any:
    """Without what is empty: `podTemplate: {spec: {}}` adds nothing to a pod."""
    if isinstance(value, dict):
        found = {name: _filled(item) for name, item in value.items()}
        return {name: item for name, item in found.items() if item not in ({}, [], None)}
    return value
