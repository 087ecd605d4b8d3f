"""Which pods requests can reach: those that are ready and that gateways have in their tables.

Moving requests to a pod needs one gateway that has it; taking another pod away for it needs all that answer, since each
of them would otherwise have nowhere to send its requests.
"""

from dataclasses import dataclass

from moorage_operator.plan.figures import Gateway
from moorage_operator.plan.pods import Replica


@dataclass(frozen=True)
class Routing:
    """The gateways; None where the installation has none, and a ready pod is a routable one."""

    gateways: tuple[Gateway, ...] | None

    @property
    def answering(self) -> tuple[Gateway, ...]:
        """Those whose view is believed."""
        return tuple(gateway for gateway in self.gateways or () if gateway.answering)

    @property
    def silent(self) -> str:
        """Why nothing is known of any table; empty when something is."""
        if self.gateways is None or self.answering:
            return ""
        if not self.gateways:
            return "No gateway is known"
        noun = "gateway answers" if len(self.gateways) == 1 else "gateways answer"
        return f"0 of {len(self.gateways)} {noun}"

    def reached(self, replicas: tuple[Replica, ...]) -> int:
        """How many ready replicas requests may be moved to."""
        return sum(1 for one in replicas if one.ready and self._by(one, any_suffices=True))

    def relied_on(self, replicas: tuple[Replica, ...]) -> int:
        """How many ready replicas others may be taken away for."""
        return sum(1 for one in replicas if one.ready and self._by(one, any_suffices=False))

    def _by(self, replica: Replica, *, any_suffices: bool) -> bool:
        if self.gateways is None:
            return True
        known = [replica.uid in gateway.of(replica.revision).targets for gateway in self.answering]
        return any(known) if any_suffices else bool(known) and all(known)
