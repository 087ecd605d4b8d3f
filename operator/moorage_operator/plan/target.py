"""Which revision spec asks for: a recorded one that means the same, the one of rollbackTo, or a new one.

A new one whose source is movable has to be looked up first: until then it is `Pending`, and nothing of it is rendered.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from moorage_api import names
from moorage_api.conditions import Reason
from moorage_api.llmdeployment import Spec
from moorage_operator.manifest import Manifest, is_deleting, label_of, revision_of
from moorage_operator.plan import revisions as revs
from moorage_operator.plan.pods import Trouble, said_of, trouble_of
from moorage_operator.plan.revisions import Revision
from moorage_operator.plan.snapshot import Snapshot
from moorage_operator.render.context import Context, Owner, Resolved
from moorage_operator.render.resolve import PURPOSE, asks, movable, question


@dataclass(frozen=True)
class Pending:
    """A revision that is about to be made once its source has been looked up."""

    number: int
    spec: Spec
    pod: Manifest | None
    """What looks it up; None before it was made."""

    @property
    def trouble(self) -> Trouble | None:
        """Why it does not come to an answer."""
        if self.pod is None:
            return None
        if said_of(self.pod) is not None:
            return Trouble(Reason.FETCH_FAILED, "The pod that looked the source up ended without an answer")
        return trouble_of(self.pod)


@dataclass(frozen=True)
class Target:
    """What spec asks for; `missing` is the number of a revision that is not remembered."""

    revision: Revision | None = None
    pending: Pending | None = None
    missing: int | None = None
    goes_back: bool = False
    """A person named it, so nothing has to be proven again."""


def target(
    snapshot: Snapshot, spec: Spec, recorded: tuple[Revision, ...], taken: Iterable[int], context: Context
) -> Target:
    """Find it, or make it."""
    if spec.rollback_to is not None:
        number = spec.rollback_to.revision
        named = next((one for one in recorded if one.number == number), None)
        return Target(named, missing=number if named is None else None, goes_back=True)
    known = revs.meant_by(recorded, spec)
    return Target(known) if known is not None else _new(snapshot, spec, recorded, taken, context)


def _new(
    snapshot: Snapshot, spec: Spec, recorded: tuple[Revision, ...], taken: Iterable[int], context: Context
) -> Target:
    owner = Owner.of(snapshot.deployment)
    pods = resolve_pods(snapshot)
    if not movable(spec):
        number = revs.next_number(recorded, (*taken, *map(revision_of, pods)))
        return Target(revs.made(number, spec, None, owner=owner, context=context, now=snapshot.now))
    asked = question(spec, context)
    pod = next((one for one in pods if asks(one) == asked and not is_deleting(one)), None)
    if pod is None:
        return Target(pending=Pending(revs.next_number(recorded, (*taken, *map(revision_of, pods))), spec, None))
    answer = _answer(pod)
    if answer is None:
        return Target(pending=Pending(revision_of(pod), spec, pod))
    return Target(revs.made(revision_of(pod), spec, answer, owner=owner, context=context, now=snapshot.now))


def resolve_pods(snapshot: Snapshot) -> tuple[Manifest, ...]:
    """The pods that look sources up, or did."""
    return tuple(pod for pod in snapshot.owned_pods() if label_of(pod, names.PURPOSE_LABEL) == PURPOSE)


def _answer(pod: Manifest) -> Resolved | None:
    said = said_of(pod) or {}
    source, digest, size = said.get("source"), said.get("digest"), said.get("bytes")
    if not isinstance(source, str):
        return None
    return Resolved(source, size if isinstance(size, int) else None, digest if isinstance(digest, str) else None)


def updated(revisions: tuple[Revision, ...], changed: Revision) -> tuple[Revision, ...]:
    """The same revisions by number, with one replaced or added."""
    others = [one for one in revisions if one.number != changed.number]
    return tuple(sorted([*others, changed], key=lambda one: one.number))
