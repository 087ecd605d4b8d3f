"""Which replica gets a request: revision by weight, then least load. Pure: load, failures and chance are arguments."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from moorage_gateway.table import Open, Revision, Target, serving


@dataclass(frozen=True, slots=True)
class Choice:
    """Where a request goes, and why."""

    target: Target
    revision: int
    reason: str


def choose(
    revisions: Sequence[Revision],
    load: Mapping[str, int],
    *,
    ejected: AbstractSet[str] = frozenset(),
    tried: AbstractSet[str] = frozenset(),
    revision_draw: float,
    tie_draw: float,
) -> Choice | None:
    """Choose a target for one request.

    A revision with weight but without a target hands its share to the others with weight. Where none of those has a
    target, the newest revision that has one serves. Ejected targets count only where nothing else takes requests: the
    connection failed a moment ago, but nothing better is known.

    Args:
        revisions: All of the model, by number.
        load: Requests per target's key, running and waiting; a missing key is 0.
        ejected: Keys of targets that failed lately.
        tried: Keys of targets that this request must not meet again.
        revision_draw: In [0, 1), which the weights cut into shares, the newest revision's first: while the weights move
            from one revision to another, a place in it changes hands once at most.
        tie_draw: Uniform in [0, 1): picks among targets of equal load, so that several gateways do not herd.

    Returns:
        None when no target is left.
    """
    found = serving(revisions, tried)
    if ejected:
        found = _without(found, ejected) or found
    if not found:
        return None
    total = sum(revision.weight for revision, _ in found)
    revision, targets = _by_weight(found, revision_draw * total) if total else found[-1]
    share = f"weight {revision.weight} of {total}" if total else "no revision with weight has a target"
    return _least_loaded(revision.number, targets, load, tie_draw, share)


def _without(found: Sequence[Open], shunned: AbstractSet[str]) -> list[Open]:
    left = ((revision, [each for each in targets if each.key not in shunned]) for revision, targets in found)
    return [each for each in left if each[1]]


def _by_weight(found: Sequence[Open], point: float) -> Open:
    for each in reversed(found):
        point -= each[0].weight
        if point < 0:
            return each
    return found[0]  # rounding: a draw just under 1


def _least_loaded(revision: int, targets: Sequence[Target], load: Mapping[str, int], draw: float, share: str) -> Choice:
    loads = [load.get(target.key, 0) for target in targets]
    least = min(loads)
    equal = [target for target, its_load in zip(targets, loads, strict=True) if its_load == least]
    reason = f"revision {revision} ({share}), load {least} is the least of {len(targets)} replicas"
    return Choice(equal[int(draw * len(equal))], revision, reason)
