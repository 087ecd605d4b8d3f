"""How many replicas more and fewer than wanted there may be, and whether those that serve give way for others."""

from dataclasses import dataclass

from moorage_operator.plan import budgeting, capacity
from moorage_operator.plan.capacity import Budget
from moorage_operator.plan.divide import Exchange
from moorage_operator.plan.revisions import Revision
from moorage_operator.plan.situation import Situation, strategy
from moorage_operator.render.sharding import pods_of


@dataclass(frozen=True)
class Room:
    """Replicas above and below spec.replicas."""

    rollout: Budget
    restarts: Budget
    """For the restart of a revision."""
    exchange: Exchange | None = None


def around(found: Situation, *, drains: bool) -> Room:
    """How many there may be; `drains`: those that serve give way, since there is no room for others beside them."""
    room, warm = capacity.budget(found.rollout, found.wanted, drains=drains), found.rollout.keep_warm
    # What a rollout starts, and what is kept warm, may be there when a person asks for a restart.
    numbers = {one.number for one in (found.stable, found.candidate) if one is not None}
    beside = found.wanted * (len(numbers) - 1) + (warm.replicas if warm is not None else 0)
    restarts = budgeting.restarting(room, found.ledger.most(numbers), found.wanted + beside)
    if not _is_tight(found):
        return Room(room, restarts)
    ready = sum(1 for one in found.replicas if one.ready)
    exchange = _exchange(found)
    if exchange is None:
        return Room(budgeting.replacing(room, found.wanted, ready), restarts)
    left, reached = _beside_the_next(found, exchange)
    enough = left + exchange.worth(reached) >= found.wanted - room.unavailable
    if not enough and not (drains and left + reached and capacity.is_auto(found.rollout, strategy(found))):
        return Room(Budget(0, max(0, found.wanted - ready)), restarts)
    return Room(Budget(0, max(0, found.wanted - min(left + reached, ready))), restarts, exchange)


def _exchange(found: Situation) -> Exchange | None:
    """How one replica of a RollingUpdate takes the place of several; None where it does not."""
    stable, candidate = found.stable, found.candidate
    if stable is None or candidate is None or found.scale.proves or strategy(found) != "RollingUpdate":
        return None
    surge = capacity.budget(found.rollout, found.wanted, drains=False).surge
    return found.ledger.exchange(stable.number, candidate.number, surge)


def _beside_the_next(found: Situation, exchange: Exchange) -> tuple[int, int]:
    """Replicas of the stable revision that may stay beside the next of the candidate, and those that this one has."""
    reached = found.crew(found.candidate.number).relied_on if found.candidate is not None else 0
    return exchange.left(found.wanted, min(found.size, reached + 1)), reached


def _is_tight(found: Situation) -> bool:
    """Whether the budget has no room for one replica more than wanted."""
    old = found.stable or found.target
    return old is not None and found.ledger.is_tight(found.wanted, old.number, (found.target or old).number, found.size)


def gives_way(found: Situation) -> bool:
    """Whether replicas of the stable revision give way, decided once for the whole way to the target."""
    target = found.target
    if target is None or not (found.candidate or found.leftovers()):
        return False
    auto = capacity.is_auto(found.rollout, strategy(found))
    ready = sum(1 for one in found.replicas if one.ready)
    exchange = _exchange(found)
    # What needs the place of all that serve takes none of them: it has proven nothing yet.
    gains = exchange is None or any(_beside_the_next(found, exchange))
    if auto and gains and _is_tight(found) and capacity.may_drain(found.wanted, ready):
        return True
    if found.stable is None or target.standing.drains or not auto:
        return target.standing.drains
    return capacity.must_drain(found.wanted, ready, found.of(target.number), found.now) and _has_a_place(found, target)


def _has_a_place(found: Situation, target: Revision) -> bool:
    """Whether a node would take a replica of the target, whichever of the stable ones gave way; no until that is known.

    What asks for more than any node has, or than one leaves, would find no place, and the deployment would be one
    replica short for good. Of replicas of several pods only the former is judged.
    """
    nodes, stable = found.nodes, found.stable
    if nodes is None or stable is None:
        return False
    several = max(pods_of(target.template), pods_of(stable.template)) > 1
    ready = () if several else tuple(one.uid for one in found.of(stable.number) if one.ready)
    return nodes.would_replace(target.template["spec"], stable.template["spec"], ready)


def patience(found: Situation) -> tuple[float, ...]:
    """Seconds until a replica without a node has waited long enough."""
    if found.target is None or not capacity.is_auto(found.rollout, strategy(found)):
        return ()
    left = capacity.patience(found.of(found.target.number), found.now)
    return (left.total_seconds(),) if left is not None and left.total_seconds() > 0 else ()
