"""spec.autoscaling.budget: no more accelerators than that, whatever the load and a rollout ask for.

What counts is what is asked for or still there, so a replica on its way out holds its accelerators until it is gone. A
write that adds replicas is cut to the room that is left before any write of the same plan has taken effect: in whatever
order they are carried out, and wherever the operator dies, the budget holds.

When room is short, first warm replicas go, then a rollout replaces instead of adding, then fewer are wanted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from moorage_api import names
from moorage_operator.manifest import Manifest, has_ended, label_of, revision_of
from moorage_operator.plan.capacity import Budget
from moorage_operator.plan.divide import Exchange, Share
from moorage_operator.plan.revisions import Revision
from moorage_operator.render.sharding import pods_of


@dataclass(frozen=True)
class Ledger:
    """The budget, and who has how much of it."""

    limit: int | None = None
    """Accelerators; None: no bound."""
    costs: Mapping[int, int] = field(default_factory=dict)
    """Accelerators of one replica, by revision."""
    asked: Mapping[int, int] = field(default_factory=dict)
    """Replicas that workloads ask for, by revision."""
    there: Mapping[int, int] = field(default_factory=dict)
    """Accelerators of pods that exist, those on their way out among them, by revision."""

    @property
    def room(self) -> int:
        """Accelerators that nobody has; less than none where the budget was lowered."""
        if self.limit is None:
            return 0
        numbers = {*self.asked, *self.there}
        taken = (max(self.asked.get(one, 0) * self.costs.get(one, 0), self.there.get(one, 0)) for one in numbers)
        return self.limit - sum(taken)

    def most(self, numbers: Iterable[int]) -> int | None:
        """Most replicas of the dearest of these revisions, but always one; None: no bound."""
        cost = max((self.costs.get(one, 0) for one in numbers), default=0)
        return None if self.limit is None or not cost else max(1, self.limit // cost)

    def lacks(self, shares: Iterable[Share]) -> bool:
        """Whether there is no room for all that these shares add, or more is taken than may be."""
        return self.limit is not None and self.left(shares) < 0

    def left(self, shares: Iterable[Share]) -> int:
        """Accelerators that nobody has once what these shares add is there."""
        return self.room - sum(self._added(share) * self.costs.get(share.number, 0) for share in shares)

    def within(self, shares: tuple[Share, ...]) -> tuple[Share, ...]:
        """The same shares with as much added as there is room for, to the earlier ones first."""
        if self.limit is None:
            return shares
        room, given = self.room, []
        for share in shares:
            added, cost = self._added(share), self.costs.get(share.number, 0)
            fitting = min(added, max(0, room) // cost) if cost else added
            room -= fitting * cost
            given.append(share if fitting == added else self._cut(share, added - fitting))
        return tuple(given)

    def holds_back(self, number: int) -> bool:
        """Whether there is no room for one more replica of a revision."""
        return self.limit is not None and self.room < self.costs.get(number, 0)

    def is_tight(self, wanted: int, stable: int, candidate: int, size: int) -> bool:
        """Whether `wanted` replicas cannot be replaced by `size` others with one more than wanted at times."""
        if self.limit is None:
            return False
        old, new = (self.costs.get(one, 0) for one in (stable, candidate))
        return max(wanted * old + new, old + size * new) > self.limit or bool(old and size < wanted)

    def exchange(self, stable: int, candidate: int, surge: int) -> Exchange | None:
        """How replicas give way for dearer ones; None where each one takes the place of one."""
        old, new = (self.costs.get(one, 0) for one in (stable, candidate))
        return Exchange(self.limit, old, new, surge) if self.limit is not None and 0 < old < new else None

    def _added(self, share: Share) -> int:
        return max(0, (share.replicas or 0) - self.asked.get(share.number, 0))

    def _cut(self, share: Share, missing: int) -> Share:
        words = f"{share.reason}; the budget of {self.limit} accelerators has no room for {missing} more"
        return replace(share, replicas=(share.replicas or 0) - missing, reason=words)


def ledger(
    limit: int | None, revisions: Iterable[Revision], asked: Mapping[int, int], pods: Iterable[Manifest]
) -> Ledger:
    """Draw it up.

    Args:
        limit: the budget; None without.
        revisions: all that are known.
        asked: replicas that workloads ask for, by revision.
        pods: all of the deployment's, also those that are being deleted.
    """
    if limit is None:
        return Ledger()
    each = {one.number: _of_a_pod(one) for one in revisions}
    costs = {one.number: each[one.number] * pods_of(one.template) for one in revisions}
    there: dict[int, int] = {}
    for pod in pods:
        number = revision_of(pod)
        if not label_of(pod, names.PURPOSE_LABEL) and not has_ended(pod):
            there[number] = there.get(number, 0) + each.get(number, 0)
    return Ledger(limit, costs, dict(asked), there)


def replacing(budget: Budget, wanted: int, ready: int) -> Budget:
    """How a RollingUpdate goes on where nothing can be added: replicas that are not ready give way, whatever spec says.

    Nobody loses an answer by that, and else a replica that never comes up would hold for ever what its successor needs.
    """
    return Budget(0, max(budget.unavailable, wanted - ready))


def restarting(budget: Budget, most: int | None, there: int) -> Budget:
    """How pods of a revision are replaced by others of the same, which their own controller does.

    Args:
        budget: as spec says.
        most: replicas that there may be in all; None: no bound.
        there: how many there may be without the restart.
    """
    surge = budget.surge if most is None else min(budget.surge, most - there)
    return Budget(surge, budget.unavailable) if surge > 0 else Budget(0, max(1, budget.unavailable))


def _of_a_pod(revision: Revision) -> int:
    return revision.accelerators.count if revision.accelerators is not None else 0
