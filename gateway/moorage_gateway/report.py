"""What a replica says of itself on `/telemetry`. Lenient: what cannot be read is left out, never zero."""

import math
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

import orjson

_FIGURES: Final = ("running", "waiting", "kvCacheUtilization", "cpuUtilization", "tokensPerSecond")
_ABSURD: Final = 1e12


@dataclass(frozen=True, slots=True)
class Report:
    """One answer.

    Attributes:
        figures: Those that were there: `running`, `waiting`, `kvCacheUtilization`, `cpuUtilization`,
            `tokensPerSecond`.
        gpu: The GPUs as the replica tells of them, or None.
    """

    figures: dict[str, int | float]
    gpu: dict[str, Any] | None

    @property
    def requests(self) -> int | None:
        """Running and waiting ones; None where it does not say both."""
        if "running" in self.figures and "waiting" in self.figures:
            return int(self.figures["running"] + self.figures["waiting"])
        return None


def parse(body: bytes) -> Report | None:
    """Read it; None where it is no JSON object."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(said, dict):
        return None
    gpu = said.get("gpu")
    figures = {name: said[name] for name in _FIGURES if is_figure(said.get(name))}
    return Report(figures, gpu if isinstance(gpu, dict) else None)


def is_figure(value: object) -> TypeGuard[float]:
    """Whether it is a number that could be true of a replica."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and 0 <= value < _ABSURD
