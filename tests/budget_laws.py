"""Laws of a budget of accelerators, told once more by what replicas cost.

Mixed into a world of rollouts that knows its `limit`, and what a replica of a revision costs (`cost`).
"""

import math
from fractions import Fraction


class WithinABudget:
    """See the module."""

    @property
    def serving(self):
        """The revision that serves: the stable one, or the first one on its way; None where its record is gone."""
        pointers = self.decided.get("revision", {})
        number = pointers.get("stable", pointers.get("candidate"))
        return number if number in self.roles() else None

    @property
    def wanted(self):
        """As many of the revision that serves as the budget allows: one on trial takes nothing away by being dearer."""
        asked, cost = super().wanted, self.cost(self.serving) if self.serving is not None else 0
        return min(asked, max(1, self.limit // cost)) if cost and self.limit < math.inf else asked

    def worth(self, number):
        """In replicas of the revision that serves."""
        cost = self.cost(self.serving) if self.limit < math.inf and self.serving is not None else 0
        return max(Fraction(1), Fraction(self.cost(number), cost)) if cost and number in self.roles() else 1

    @property
    def gives_way(self):
        """Replicas that give way at most for one of the candidate, where the choice is ours."""
        candidate = self.decided.get("revision", {}).get("candidate")
        return math.ceil(self.worth(candidate)) if candidate is not None else 1
