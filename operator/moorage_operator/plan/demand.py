"""Whether anybody asks for a deployment: what gateways hold and have in flight, and since when they have had nothing.

Each gateway counts since its own start, and what it says is put on the operator's clock as it arrives, so nobody has to
remember anything: one that was away has seen nothing meanwhile, and with it the quiet begins anew. Of a gateway that
clients are sent to and that does not answer nobody knows what it has, and then it is not known that it is quiet.
"""

from dataclasses import dataclass
from datetime import datetime

from moorage_operator.plan.figures import Gateway
from moorage_operator.plan.routable import Routing


@dataclass(frozen=True)
class Demand:
    """What all gateways together say."""

    held: int = 0
    """Requests that wait at gateways, since nothing serves them."""
    in_flight: int = 0
    """Requests that replicas answer, also those that came past the gateways, by the Service."""
    quiet_since: datetime | None = None
    """When any gateway last had a request; None while nobody knows."""
    heard: datetime | None = None
    """Until when that is known: what came since the last word of a gateway, it has not told yet."""
    gateways: int = 0
    """How many gateways say so."""
    unknown: str = ""
    """Why nobody knows; empty when it is known."""

    @property
    def there(self) -> bool:
        """Whether somebody waits for an answer now. One gateway that says so suffices."""
        return bool(self.held or self.in_flight)


def demand(routing: Routing) -> Demand:
    """Add up what the gateways say of a deployment."""
    answering = routing.answering
    held = sum(one.held for one in answering)
    in_flight = max(_sent(answering), _told(answering))
    quiet = [one.quiet_since for one in answering if one.quiet_since is not None]
    heard = [one.heard for one in answering if one.heard is not None]
    unknown = _unknown(routing)
    if unknown or not quiet or not heard:
        return Demand(held, in_flight, unknown=unknown)
    return Demand(held, in_flight, max(quiet), min(heard), len(answering))


def _sent(gateways: tuple[Gateway, ...]) -> int:
    """What gateways have sent to replicas: true at once, but theirs alone."""
    return sum(figures.in_flight for one in gateways for figures in one.revisions)


def _told(gateways: tuple[Gateway, ...]) -> int:
    """What replicas say that they have, whoever sent it: up to seconds old. Of several words the largest counts."""
    most: dict[str, int] = {}
    for pod in (pod for one in gateways for pod in one.pods):
        most[pod.uid] = max(most.get(pod.uid, 0), pod.running + pod.waiting)
    return sum(most.values())


def _unknown(routing: Routing) -> str:
    """Why it is not known whether all is quiet; empty when it is."""
    gateways, answering = routing.gateways or (), routing.answering
    if routing.gateways is None:
        return "This installation has no gateways"
    if routing.silent:
        return routing.silent
    if any(one.ready and not one.answering for one in gateways):
        return f"{len(answering)} of {len(gateways)} gateways answer"
    mute = next((one.name for one in answering if one.quiet_since is None or one.heard is None), None)
    return "" if mute is None else f"Gateway {mute} does not tell when the last request was there"
