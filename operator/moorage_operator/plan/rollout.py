"""How many replicas each revision gets at this moment, and which share of the requests.

The rule is memoryless: it looks at what is ready now, so it does not matter what happened before, or how often the
operator died on the way. One replica more than wanted may exist (surge 1), and no step takes away a ready replica while
fewer than wanted would be left. With N wanted:

    candidate's ready   0    1      2      … N
    stable              N    N-1    N-2    … promotion: it is the old one now, and goes once its requests are done
    candidate           1    2      3      … N, and stable now
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Crew:
    """The replicas of one revision: how many its workload asks for (0 without one), and how many are ready."""

    number: int
    replicas: int = 0
    ready: int = 0
    weight: int = 0
    """The share of requests that was last reported for it."""
    retired: bool = False
    """It has been told that it takes no part any more."""
    drained: bool = False
    """It has been retired for long enough that its requests go elsewhere."""


@dataclass(frozen=True)
class Share:
    """What one revision gets. `replicas` None: its workload shall go."""

    number: int
    replicas: int | None
    weight: int
    reason: str
    retired: bool = False


def may_promote(wanted: int, stable: Crew | None, candidate: Crew) -> bool:
    """Whether the candidate takes over: all wanted replicas are ready, or any at all where nothing served before."""
    return candidate.ready >= (wanted if stable is not None else min(wanted, 1))


def divide(wanted: int, stable: Crew | None, candidate: Crew | None, leftovers: tuple[Crew, ...]) -> tuple[Share, ...]:
    """Divide `wanted` replicas and 100 % of the requests.

    Args:
        wanted: spec.replicas.
        stable: the revision that holds the traffic; None before the first one has served.
        candidate: the revision that is being rolled out; None when there is none.
        leftovers: all other revisions that still have a workload.
    """
    current = tuple(crew for crew in (stable, candidate) if crew is not None)
    covered = sum(crew.ready for crew in current) >= wanted
    rest = tuple(_leftover(crew, covered=covered) for crew in leftovers)
    steps = _steps(wanted, stable, candidate, crowded=any(share.replicas for share in rest))
    ready = {crew.number: crew.ready for crew in (*current, *leftovers)}
    shares = _weighted((*steps, *rest), ready, fallback=current[0].number if current else 0)
    return tuple(_after_its_traffic(share, crew) for share, crew in zip(shares, (*current, *leftovers), strict=True))


def _steps(wanted: int, stable: Crew | None, candidate: Crew | None, *, crowded: bool) -> tuple[Share, ...]:
    if stable is None or candidate is None:
        only = stable or candidate
        return () if only is None else (Share(only.number, wanted, 0, f"{wanted} wanted"),)
    kept = max(min(1, wanted), wanted - candidate.ready)
    room = candidate.replicas if crowded else wanted + 1 - max(kept, stable.replicas)
    grown = max(room, min(candidate.replicas, wanted + 1 - kept))
    why = "an earlier candidate goes first" if crowded else "surge 1"
    return (
        Share(stable.number, kept, 0, f"{wanted} wanted, {candidate.ready} of the candidate ready"),
        Share(candidate.number, min(wanted, grown), 0, f"{candidate.ready} of {wanted} ready, {why}"),
    )


def _leftover(crew: Crew, *, covered: bool) -> Share:
    """A revision that is neither stable nor candidate keeps what is ready for as long as that is needed, then goes."""
    if crew.ready == 0:
        return Share(crew.number, None, 0, "no longer wanted, and nothing of it serves", retired=True)
    if not covered and not crew.retired:
        return Share(crew.number, min(crew.replicas, crew.ready), 0, "its ready replicas are still needed")
    if covered and crew.drained:
        return Share(crew.number, None, 0, "no longer wanted, and its requests go elsewhere", retired=True)
    return Share(crew.number, min(crew.replicas, crew.ready), 0, "its last requests finish", retired=True)


def _weighted(shares: tuple[Share, ...], ready: dict[int, int], fallback: int) -> tuple[Share, ...]:
    """Weights by the ready replicas that stay; all for `fallback` while nothing is ready."""
    serving = {s.number: min(ready[s.number], s.replicas or 0) for s in shares if not s.retired}
    weights = percentages({number: count for number, count in serving.items() if count} or {fallback: 1})
    return tuple(Share(s.number, s.replicas, weights.get(s.number, 0), s.reason, s.retired) for s in shares)


def _after_its_traffic(share: Share, crew: Crew) -> Share:
    """A revision loses replicas only after the smaller share of requests has been reported."""
    if share.replicas is None or share.replicas >= crew.replicas or crew.weight <= share.weight:
        return share
    return Share(share.number, crew.replicas, share.weight, f"{share.reason}; requests move first", share.retired)


def percentages(counts: dict[int, int]) -> dict[int, int]:
    """Whole percentages in the ratio of `counts` (each > 0), summing to 100 by the method of largest remainders."""
    total = sum(counts.values())
    floors = {number: count * 100 // total for number, count in counts.items()}
    by_remainder = sorted(counts, key=lambda number: (-(counts[number] * 100 % total), number))
    for number in by_remainder[: 100 - sum(floors.values())]:
        floors[number] += 1
    return floors
