"""Which replica gets a request: revision by weight, then least load. Pure: load, failures and chance are arguments."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from moorage_gateway.table import Revision, Target


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
    target, the newest revision that has one serves: the table is a moment behind the pods, and a request that can be
    answered is answered. Ejected targets count only when their revision's tier has no other: the connection failed a
    moment ago, but nothing better is known.

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
    for weighted in (True, False):
        for shunned in (ejected | tried, tried):
            tier = _tier(revisions, shunned, weighted=weighted)
            if tier:
                total = sum(revision.weight for revision, _ in tier)
                revision, targets = _by_weight(tier, revision_draw * total) if weighted else tier[-1]
                share = f"weight {revision.weight} of {total}" if weighted else "no revision with weight has a target"
                return _least_loaded(revision.number, targets, load, tie_draw, share)
    return None


_Open = tuple[Revision, Sequence[Target]]


def _tier(revisions: Sequence[Revision], shunned: AbstractSet[str], *, weighted: bool) -> list[_Open]:
    """The revisions with (or without) weight that have a target left, each with its targets."""
    tier: list[_Open] = []
    for revision in revisions:
        if (revision.weight > 0) is weighted:
            targets = [t for t in revision.targets if t.key not in shunned] if shunned else revision.targets
            if targets:
                tier.append((revision, targets))
    return tier


def _by_weight(tier: Sequence[_Open], point: float) -> _Open:
    for each in reversed(tier):
        point -= each[0].weight
        if point < 0:
            return each
    return tier[0]  # rounding: a draw just under 1


def _least_loaded(revision: int, targets: Sequence[Target], load: Mapping[str, int], draw: float, share: str) -> Choice:
    loads = [load.get(target.key, 0) for target in targets]
    least = min(loads)
    equal = [target for target, its_load in zip(targets, loads, strict=True) if its_load == least]
    reason = f"revision {revision} ({share}), load {least} is the least of {len(targets)} replicas"
    return Choice(equal[int(draw * len(equal))], revision, reason)
