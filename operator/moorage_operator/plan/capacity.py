"""Room on nodes: how many replicas more or fewer than wanted a rollout may run, and what it does without room.

The scheduler decides what fits, and a cluster autoscaler has to see the pod, so the pod is always made; that no node
has room for it is read from its status.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from moorage_api.rollout import Rollout
from moorage_operator.plan.pods import Replica

PATIENCE: Final = timedelta(seconds=60)
"""How long a pod may be without a node, and find all full at last, before one of the stable revision gives way."""
_TWO: Final = 2


@dataclass(frozen=True)
class Budget:
    """Replicas above and below spec.replicas that may exist during a RollingUpdate."""

    surge: int
    unavailable: int


def budget(rollout: Rollout, wanted: int, *, drains: bool) -> Budget:
    """As spec says; Auto is one more, or one less where one more found no room (`drains`) and one would be left."""
    if rollout.max_surge is None and rollout.max_unavailable is None:
        return Budget(0, 1) if drains and wanted >= _TWO else Budget(1, 0)
    unavailable = _part(rollout.max_unavailable or "0", wanted)
    if rollout.max_surge is None:
        return Budget(0 if unavailable else 1, unavailable)
    surge = _part(rollout.max_surge, wanted, up=True)
    # As apps/v1 does it: of few replicas a percentage may be less than one, and something has to move.
    return Budget(surge, unavailable or int(not surge))


def _part(share: str, wanted: int, *, up: bool = False) -> int:
    """So many replicas; a percentage is of `wanted`, rounded."""
    if not share.endswith("%"):
        return int(share)
    hundredths = int(share[:-1]) * wanted
    return -(-hundredths // 100) if up else hundredths // 100


def is_auto(rollout: Rollout, strategy: str) -> bool:
    """Whether the choice is the operator's; `strategy` is the one that is followed now, which may not be spec's."""
    return strategy == "RollingUpdate" and rollout.max_surge is None and rollout.max_unavailable is None


def must_drain(wanted: int, routable: int, candidate: Iterable[Replica], now: datetime) -> bool:
    """Whether a replica of the stable revision has to give way for one of the candidate."""
    left = patience(candidate, now)
    return min(wanted, routable) >= _TWO and left is not None and left <= timedelta()


def patience(replicas: Iterable[Replica], now: datetime) -> timedelta | None:
    """How much longer they are waited for to find room; None where room is not what they lack."""
    since = min((one.crowded_since for one in replicas if one.crowded_since is not None), default=None)
    return None if since is None else PATIENCE - (now - since)


def without_room(replicas: Iterable[Replica]) -> Replica | None:
    """A replica that no node takes."""
    return next((one for one in replicas if one.unschedulable_since is not None), None)
