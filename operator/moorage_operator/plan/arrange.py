"""Which groups of pods a revision shall have: how many is decided by `divide`, which ones here.

What ReplicaSets do for single pods, by the same rules: what is not ready goes first, and what is told to go is replaced
at once. Groups are never changed, only made and let go. A number is free once neither its workload nor a pod of it is
left, so no group waits for an old one, though that may finish its answers for long, or never end on a lost node.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from moorage_operator.manifest import is_deleting
from moorage_operator.plan.capacity import PATIENCE
from moorage_operator.plan.groups import Group
from moorage_operator.plan.routable import Routing
from moorage_operator.render.workload import restart_of


@dataclass(frozen=True)
class Order:
    """What is asked for."""

    wanted: int
    """How many groups there shall be."""
    restart: str = ""
    """The last restart that a person asked for: groups of an earlier one are replaced."""
    surge: int = 1
    """How many more than wanted there may be meanwhile."""
    spare: int = 0
    """How many that others rely on may be missing meanwhile."""
    fitting: int | None = None
    """How many may be made now; None: as many as it takes."""
    awaited: int = 0
    """Pods that would make a group of an earlier revision whole, which waits for nodes of the same kind."""


@dataclass(frozen=True)
class Arrangement:
    """What becomes of the groups of one revision."""

    kept: tuple[Group, ...] = ()
    new: tuple[int, ...] = ()
    gone: tuple[tuple[Group, str], ...] = ()
    """Each with the reason why."""
    wakes: tuple[float, ...] = ()
    """Seconds after which time alone changes something."""
    waiting: Group | None = None
    """The first group that waits for nodes, for long enough."""


@dataclass(frozen=True)
class _Judge:
    """What groups are judged by."""

    order: Order
    routing: Routing
    now: datetime

    def worth(self, group: Group) -> tuple[bool, bool, bool, float, int]:
        """What has the least goes first: of those that are alike the latest, which gateways know the shortest."""
        since = group.replica.ready_since if group.replica is not None else None
        age = 0.0 if since is None else (self.now - since).total_seconds()
        return self.is_relied_on(group), _is_ready(group), not self.is_stale(group), age, -group.number

    def is_relied_on(self, group: Group) -> bool:
        """Whether another group may go for it."""
        return group.replica is not None and self.routing.relied_on((group.replica,)) > 0

    def is_stale(self, group: Group) -> bool:
        """Whether it is of before the last restart that a person asked for."""
        return group.workload is not None and restart_of(group.workload) != self.order.restart

    def is_stuck(self, group: Group) -> bool:
        """Whether a pod of it has waited for a node for long enough."""
        since = group.replica.unschedulable_since if group.replica is not None else None
        return since is not None and self.now - since >= PATIENCE


def arrange(groups: tuple[Group, ...], order: Order, routing: Routing, now: datetime) -> Arrangement:
    """Decide.

    Args:
        groups: those that are there, with those of which nothing but pods is left.
        order: what is asked for.
        routing: which of them others may be taken away for.
        now: the time.
    """
    judge = _Judge(order, routing, now)
    there = [one for one in groups if one.workload is not None and not is_deleting(one.workload)]
    gone = [
        (one, "a pod of it was told to go, and the others are of no use without it") for one in there if one.leaving
    ]
    left = sorted((one for one in there if not one.leaving), key=judge.worth)
    most = order.wanted + (order.surge if any(map(judge.is_stale, left)) else 0)
    gone += [(one, f"{order.wanted} wanted") for one in left[: max(0, len(left) - most)]]
    gone += _replaced(_without(left, gone), judge)
    gone += _giving_way([one for one in _without(left, gone) if judge.is_stuck(one)], order.awaited)
    kept = _without(left, gone)
    return Arrangement(
        kept=tuple(sorted(kept, key=lambda one: one.number)),
        # What goes is there until it is gone; only in place of what is going anyway another one comes at once.
        new=tuple(itertools.islice(_free(groups), _missing(kept, most - (len(left) - len(kept)), judge))),
        gone=tuple(sorted(gone, key=lambda one: one[0].number)),
        wakes=tuple(_wakes(kept, now)),
        waiting=min(filter(judge.is_stuck, kept), key=lambda one: one.number, default=None),
    )


def _replaced(left: list[Group], judge: _Judge) -> list[tuple[Group, str]]:
    """Groups of before a restart that may go: those that serve nobody, and others for as many as there are to spare."""
    stale = [one for one in left if judge.is_stale(one)]
    idle = [one for one in stale if not _is_ready(one)]
    ready = [one for one in stale if _is_ready(one)][: max(0, judge.order.spare)]
    return [(one, "a person asked for a restart") for one in (*idle, *ready)]


def _giving_way(stuck: list[Group], awaited: int) -> list[tuple[Group, str]]:
    """Of several groups that wait for nodes the first one gets what the others hold: or none would ever be whole.

    It gives way itself to one of an earlier revision where that is whole by it, since nothing is free while it waits.
    """
    waiting = sorted(stuck, key=lambda one: one.number)
    going = [(one, "an earlier group waits for the nodes that it holds") for one in waiting[1:] if one.placed]
    if not going and waiting and 0 < awaited <= waiting[0].placed:
        going = [(waiting[0], "a group of an earlier revision waits for the nodes that it holds")]
    return going


def _missing(kept: list[Group], most: int, judge: _Judge) -> int:
    """How many to make: none while one waits for nodes, which would have to share them with it."""
    if any(map(judge.is_stuck, kept)):
        return 0
    fresh, fitting = sum(1 for one in kept if not judge.is_stale(one)), judge.order.fitting
    missing = max(0, min(judge.order.wanted - fresh, most - len(kept)))
    return missing if fitting is None else min(missing, max(0, fitting))


def _without(left: list[Group], gone: Iterable[tuple[Group, str]]) -> list[Group]:
    numbers = {one.number for one, _ in gone}
    return [one for one in left if one.number not in numbers]


def _free(groups: tuple[Group, ...]) -> Iterator[int]:
    taken = {one.number for one in groups}
    return (number for number in itertools.count() if number not in taken)


def _is_ready(group: Group) -> bool:
    return group.replica is not None and group.replica.ready


def _wakes(kept: list[Group], now: datetime) -> Iterator[float]:
    for one in kept:
        since = one.replica.unschedulable_since if one.replica is not None else None
        if since is not None and since + PATIENCE > now:
            yield (since + PATIENCE - now).total_seconds()
