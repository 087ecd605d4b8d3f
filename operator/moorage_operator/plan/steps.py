"""spec.rollout -> the stages of a rollout: how many replicas of the candidate, which share of requests, for how long.

A RollingUpdate has none: it takes one replica after the other, as `divide` says.
"""

import math
from dataclasses import dataclass
from datetime import timedelta

from moorage_api.duration import duration_value
from moorage_api.rollout import Rollout


@dataclass(frozen=True)
class Stage:
    """One stage. Its weight is set once `size` replicas of the candidate are routable."""

    weight: int
    size: int
    hold: timedelta = timedelta()
    """How long the weight stays at least."""
    gated: bool = False
    """Whether gates are judged before it is left."""


def stages(rollout: Rollout, wanted: int) -> tuple[Stage, ...]:
    """The stages of a rollout to `wanted` replicas; none for a RollingUpdate. After the last one comes promotion."""
    if rollout.strategy == "Canary":
        return _canary(rollout, wanted)
    return _blue_green(rollout, wanted) if rollout.strategy == "BlueGreen" else ()


def _canary(rollout: Rollout, wanted: int) -> tuple[Stage, ...]:
    steps = (
        Stage(step.weight, _share(step.weight, wanted), duration_value(step.hold), gated=True) for step in rollout.steps
    )
    return (*steps, Stage(100, wanted))


def _blue_green(rollout: Rollout, wanted: int) -> tuple[Stage, ...]:
    """The whole colour first, then everything at once; judged while the old colour is still whole."""
    hold = duration_value(rollout.keep_warm.for_) if rollout.keep_warm is not None else timedelta()
    return (Stage(0, wanted), Stage(100, wanted, hold, gated=True))


def _share(weight: int, wanted: int) -> int:
    return max(1, math.ceil(weight * wanted / 100))
