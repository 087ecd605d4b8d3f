"""How many replicas each revision gets at this moment, and which share of the requests.

The rule is memoryless but for the stage of a canary: it looks at what is there now, so it does not matter what happened
before, or how often the operator died on the way. No share takes away a replica that the promise (spec.replicas less
what may be unavailable) needs. A RollingUpdate of N replicas with surge 1:

    candidate's ready   0    1    2      … N
    stable              N    N-1  N-2    … promotion: it is the old one now, and goes once its requests are done
    candidate           1    2    3      … N, and stable now

The stages of a canary and of a blue-green rollout leave the stable revision whole until promotion.
"""

from dataclasses import dataclass, field, replace

from moorage_operator.plan.capacity import Budget


@dataclass(frozen=True)
class Crew:
    """The replicas of one revision: how many its workload asks for (0 without one), and how far they are."""

    number: int
    replicas: int = 0
    ready: int = 0
    reached: int = 0
    """Ready ones that requests may be moved to."""
    relied_on: int = 0
    """Ready ones that others may be taken away for."""
    weight: int = 0
    """The share of requests that was last reported for it."""
    retired: bool = False
    """It has been told that it takes no part any more."""
    drained: bool = False
    """It has been retired for long enough that its requests go elsewhere."""
    failed: bool = False
    """It was given up: it gets no requests, however few others there are."""
    kept: int = 0
    """Replicas of it that are kept warm."""


@dataclass(frozen=True)
class Exchange:
    """Replicas of the candidate cost more of a budget than those that give way, so one takes the place of several."""

    budget: int
    """In accelerators, as both costs."""
    old: int
    new: int
    surge: int
    """How many more than wanted there may be of both, where there is room."""

    def left(self, wanted: int, candidates: int) -> int:
        """Most replicas of the stable revision beside so many of the candidate."""
        fitting = (self.budget - candidates * self.new) // self.old
        return max(0, min(wanted, wanted + self.surge - candidates, fitting))

    def beside(self, wanted: int, stable: int) -> int:
        """Most replicas of the candidate beside so many of the stable revision."""
        fitting = (self.budget - stable * self.old) // self.new
        return max(0, min(wanted + self.surge - stable, fitting))

    def worth(self, candidates: int) -> int:
        """Replicas of the stable revision that so many of the candidate make up for."""
        return candidates * self.new // self.old


@dataclass(frozen=True)
class Course:
    """What the rollout may do now."""

    budget: Budget = field(default_factory=lambda: Budget(1, 0))
    size: int | None = None
    """Replicas of the candidate at this stage; None: one after the other."""
    full: int | None = None
    """Replicas of the candidate that take the place of all; None: as many as are wanted."""
    exchange: Exchange | None = None
    """How one after the other takes the place of several; None: of one."""
    weight: int | None = None
    """Its share of requests; None: by its replicas."""
    frozen: bool = False
    """Nothing grows or shrinks for the rollout's sake."""
    silent: bool = False
    """No gateway tells what it has in its table: nothing moves at all."""
    resting: bool = False
    """The stable revision is at zero, and nobody asks for it: only the candidate gets a replica, to prove itself."""
    hurried: bool = False
    """The stable revision is in trouble, or none of it answers: the candidate does not wait for earlier ones to go."""


@dataclass(frozen=True)
class Share:
    """What one revision gets. `replicas` None: its workload shall go."""

    number: int
    replicas: int | None
    weight: int
    reason: str
    retired: bool = False


def divide(
    wanted: int, stable: Crew | None, candidate: Crew | None, leftovers: tuple[Crew, ...], course: Course
) -> tuple[Share, ...]:
    """Divide `wanted` replicas and 100 % of the requests.

    Args:
        wanted: spec.replicas.
        stable: the revision that holds the traffic; None before the first one has served.
        candidate: the revision that is being rolled out; None when there is none.
        leftovers: all other revisions that still have a workload.
        course: what the rollout may do now.
    """
    current = tuple(crew for crew in (stable, candidate) if crew is not None)
    promise = max(0, wanted - course.budget.unavailable)
    missing = promise - sum(crew.relied_on for crew in current)
    alone = not any(crew.ready for crew in current)
    rest = _leftovers(leftovers, wanted, missing, alone=alone, surge=course.budget.surge)
    crowded = not _cannot_wait(stable, course) and any(map(_in_the_way, rest, leftovers))
    crews = (*current, *leftovers)
    shares = _kept_promise((*_steps(wanted, stable, candidate, course, crowded=crowded), *rest), crews, promise)
    weights = _weights(shares, crews, candidate, course)
    weighted = (replace(share, weight=weights.get(share.number, 0)) for share in shares)
    return tuple(_after_its_traffic(share, crew) for share, crew in zip(weighted, crews, strict=True))


def _cannot_wait(stable: Crew | None, course: Course) -> bool:
    """Whether nothing says that earlier replicas will ever be relieved.

    The stable revision is in trouble, or has none ready: one that came while there were no replicas may never have any.
    """
    return course.hurried or stable is None or not stable.ready


def _in_the_way(share: Share, crew: Crew) -> bool:
    return bool(share.replicas) and (share.replicas or 0) > crew.kept


def _steps(
    wanted: int, stable: Crew | None, candidate: Crew | None, course: Course, *, crowded: bool
) -> tuple[Share, ...]:
    if stable is None or candidate is None:
        only = stable or candidate
        return () if only is None else (Share(only.number, wanted, 0, f"{wanted} wanted"),)
    full = wanted if course.full is None else course.full
    if course.resting:
        size = candidate.replicas if course.frozen or crowded else full
        return (
            Share(stable.number, 0, 0, "nobody asks for it"),
            Share(candidate.number, min(full, size), 0, "it proves itself before somebody asks"),
        )
    if course.size is None:
        return _one_after_the_other(wanted, full, stable, candidate, course, crowded=crowded)
    why = "nothing moves for now" if course.frozen else f"{course.size} for this stage"
    size = candidate.replicas if course.frozen or crowded else course.size
    return (
        Share(stable.number, wanted, 0, "whole until promotion"),
        Share(candidate.number, min(full, size), 0, "an earlier candidate goes first" if crowded else why),
    )


def _one_after_the_other(
    wanted: int, full: int, stable: Crew, candidate: Crew, course: Course, *, crowded: bool
) -> tuple[Share, ...]:
    surge, promise = course.budget.surge, max(0, wanted - course.budget.unavailable)
    # One stays until promotion, to go back to; but without surge the last of the candidate needs its place.
    least = min(1, promise) if surge else 0
    needed = max(least, promise - candidate.ready)
    if course.frozen:
        # Where nothing is there, nothing would ever come: it was woken with a rollout that stands.
        lone = 0 if candidate.replicas else min(1, wanted)
        return (
            Share(stable.number, max(needed, lone, min(stable.replicas, wanted)), 0, "nothing moves for now"),
            Share(candidate.number, min(candidate.replicas, full), 0, "nothing moves for now"),
        )
    # Fewer than there are only once every gateway can do without them; more as soon as the promise needs them.
    spared = max(least, promise - candidate.relied_on)
    kept = min(max(stable.replicas, needed), max(spared, needed))
    room, most = wanted + surge - max(kept, stable.replicas), wanted + surge - kept
    if (exchange := course.exchange) is not None:
        room = max(candidate.ready, exchange.beside(wanted, max(kept, stable.replicas)))
        most = max(candidate.ready, exchange.beside(wanted, kept))
    grown = max(candidate.replicas if crowded else room, min(candidate.replicas, most))
    why = "an earlier candidate goes first" if crowded else f"surge {surge}, {course.budget.unavailable} unavailable"
    return (
        Share(stable.number, kept, 0, f"{wanted} wanted, {candidate.relied_on} of the candidate routable"),
        Share(candidate.number, max(0, min(full, grown)), 0, f"{candidate.ready} of {full} ready, {why}"),
    )


def _leftovers(crews: tuple[Crew, ...], wanted: int, missing: int, *, alone: bool, surge: int) -> tuple[Share, ...]:
    """Revisions that are neither stable nor candidate.

    Without surge what replaces them needs their place, so no more of them stay than are needed: of all together, those
    that take part first, and of the latest first.
    """
    needed, shares = wanted if surge else missing, {}
    for crew in sorted(crews, key=lambda one: (one.retired, -one.number)):
        share = _leftover(crew, needed, covered=missing <= 0, alone=alone)
        if not surge and not crew.failed:
            needed = max(0, needed - max(0, (share.replicas or 0) - _unheard(crew)))
        shares[crew.number] = share
    return tuple(shares[crew.number] for crew in crews)


def _unheard(crew: Crew) -> int:
    """Ready replicas of it that nobody else may be taken away for."""
    return crew.ready - crew.relied_on


def _leftover(crew: Crew, needed: int, *, covered: bool, alone: bool) -> Share:
    """A revision that is neither stable nor candidate keeps what is ready for as long as that is needed, then goes."""
    kept = min(crew.replicas, crew.kept)
    there = max(kept, min(crew.replicas, crew.ready))
    if not there:
        return Share(crew.number, None, 0, "no longer wanted, and nothing of it serves", retired=True)
    still = needed + _unheard(crew)
    if still and not crew.retired and not covered:
        return Share(crew.number, min(there, max(kept, still)), 0, "its ready replicas are still needed")
    if not crew.drained:
        return Share(crew.number, there, 0, "its last requests finish", retired=True)
    if still and not covered and not (crew.failed and not alone):
        # Where nothing else has a target, gateways send it requests all the same.
        return Share(crew.number, min(there, max(kept, still)), 0, "needed until others are ready", retired=True)
    if kept:
        return Share(crew.number, kept, 0, "kept warm to go back to", retired=True)
    return Share(crew.number, None, 0, "no longer wanted, and its requests go elsewhere", retired=True)


def _kept_promise(shares: tuple[Share, ...], crews: tuple[Crew, ...], promise: int) -> tuple[Share, ...]:
    """Give back what must not go yet: no more ready replicas than were there, and no fewer than promised."""
    left = [min(crew.ready, share.replicas or 0) for share, crew in zip(shares, crews, strict=True)]
    missing = min(promise, sum(crew.ready for crew in crews if not crew.failed)) - sum(
        count for count, crew in zip(left, crews, strict=True) if not crew.failed
    )
    given = []
    for share, crew, count in zip(shares, crews, left, strict=True):
        back = 0 if crew.failed else max(0, min(missing, crew.ready - count))
        missing -= back
        reason = f"{share.reason}; needed until others are ready"
        given.append(replace(share, replicas=count + back, reason=reason) if back else share)
    return tuple(given)


def _weights(
    shares: tuple[Share, ...], crews: tuple[Crew, ...], candidate: Crew | None, course: Course
) -> dict[int, int]:
    """Each revision's percentage; all for the first one while nothing can be reached."""
    fallback = {shares[0].number: 1} if shares else {}
    part = {share.number for share in shares if not share.retired and share.replicas is not None}
    if course.silent:
        told = {crew.number: crew.weight for crew in crews if crew.weight and crew.number in part}
        return percentages(told or fallback)
    serving = {
        share.number: count
        for share, crew in zip(shares, crews, strict=True)
        if share.number in part and (count := min(crew.reached, share.replicas or 0))
    }
    if candidate is None or course.weight is None or len(shares) == 1:
        return percentages(serving or fallback)
    weight = course.weight if candidate.reached else 0
    others = {number: count for number, count in serving.items() if number != candidate.number} or fallback
    rest = {number: share * (100 - weight) for number, share in percentages(others).items()}
    return percentages({number: share for number, share in {**rest, candidate.number: weight * 100}.items() if share})


def _after_its_traffic(share: Share, crew: Crew) -> Share:
    """A revision loses replicas only after the smaller share of requests has been reported."""
    if share.replicas is None or share.replicas >= crew.replicas or crew.weight <= share.weight:
        return share
    return replace(share, replicas=crew.replicas, reason=f"{share.reason}; requests move first")


def percentages(counts: dict[int, int]) -> dict[int, int]:
    """Whole percentages in the ratio of `counts` (each > 0), summing to 100 by the method of largest remainders."""
    total = sum(counts.values())
    floors = {number: count * 100 // total for number, count in counts.items()}
    by_remainder = sorted(counts, key=lambda number: (-(counts[number] * 100 % total), number))
    for number in by_remainder[: 100 - sum(floors.values())]:
        floors[number] += 1
    return floors
