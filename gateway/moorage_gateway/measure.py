"""The figures that autoscalers ask for: the sum over a model's serving replicas, out of what all gateways tell. Pure.

What is not known is not told: never zero, and of no more than a fifth of the replicas is it guessed. Of a model that
sleeps all of it is known to be zero, and told: an autoscaler that misses one of its metrics scales nothing down.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from moorage_api.conditions import Reason
from moorage_gateway.report import is_figure
from moorage_gateway.table import Model, Revision

Pod = Mapping[str, Any]
"""What a gateway tells of one replica, as it is in a view."""

_SILENT_PARTS: Final = 5
"""One replica in so many may tell nothing: the others speak for it."""
_PERCENT: Final = 100


@dataclass(frozen=True, slots=True)
class Told:
    """What one gateway tells of one model.

    Attributes:
        held: Requests that wait at it.
        in_flight: Requests that it has sent to replicas, by revision.
        pods: What it knows of replicas, by UID; those that have told something lately.
    """

    held: int
    in_flight: Mapping[int, int]
    pods: Mapping[str, Pod]


@dataclass(frozen=True, slots=True)
class Unknown:
    """There is no figure, and why."""

    reason: str


def read(raw: Mapping[str, Any]) -> Told:
    """Read a model of a view. A gateway of an older version tells of no held requests: it holds none.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: it is no view's.
    """
    return Told(
        held=int(raw.get("held", 0)),
        in_flight={int(each["number"]): int(each["inFlight"]) for each in raw["revisions"]},
        pods={str(pod["uid"]): pod for pod in raw["pods"]},
    )


def figure(metric: str, model: Model, told: Sequence[Told], *, complete: bool) -> float | Unknown:
    """One figure of one model, over all of its serving replicas.

    Replicas serve when their revision has weight; while none has, every replica may.

    Args:
        metric: One of `METRICS`.
        model: Which replicas it has.
        told: What each gateway says.
        complete: Whether every gateway that takes requests has told.
    """
    serving = _serving(model)
    replicas = [target.key for revision in serving for target in revision.targets]
    known = [value for uid in replicas if (value := _known(metric, uid, told)) is not None]
    silent = len(replicas) - len(known)
    if silent * _SILENT_PARTS > len(replicas):
        return Unknown(f"{silent} of {len(replicas)} replicas have told no such figure lately")
    if not replicas and metric not in _HELD_TOO:
        return 0.0 if model.reason == Reason.SCALED_TO_ZERO else Unknown("no replica serves")
    if not replicas and not complete:
        return Unknown("no replica serves, and not every gateway says how many requests wait")
    total = sum(known) * len(replicas) / len(known) if known else 0.0
    if metric == "RequestsInFlight":
        numbers = {revision.number for revision in serving}
        total = max(total, sum(_in_flight(each, numbers) for each in told))
    return total + (sum(each.held for each in told) if metric in _HELD_TOO else 0)


def quantity(value: float) -> str:
    """A figure as Kubernetes writes it: whole, or in thousandths."""
    thousandths = round(value * 1000)
    whole, rest = divmod(thousandths, 1000)
    return f"{thousandths}m" if rest else str(whole)


def _serving(model: Model) -> tuple[Revision, ...]:
    return tuple(revision for revision in model.revisions if revision.weight) or model.revisions


def _in_flight(told: Told, numbers: set[int]) -> int:
    """Counted by the gateways themselves, so true at once; what replicas say is up to seconds old, but says all."""
    return sum(count for number, count in told.in_flight.items() if number in numbers)


def _known(metric: str, uid: str, told: Sequence[Told]) -> float | None:
    """The largest that a gateway has heard from that replica: whichever is asked, all give the same answer."""
    values = [value for each in told if (value := METRICS[metric](each.pods.get(uid, {}))) is not None]
    return max(values, default=None)


def _number(pod: Pod, name: str) -> float | None:
    value = pod.get(name)
    return float(value) if is_figure(value) else None


def _requests(pod: Pod) -> float | None:
    running, waiting = _number(pod, "running"), _number(pod, "waiting")
    return None if running is None or waiting is None else running + waiting


def _percent(name: str) -> Callable[[Pod], float | None]:
    def value(pod: Pod) -> float | None:
        part = _number(pod, name)
        return None if part is None else part * _PERCENT

    return value


def _gpu(pod: Pod) -> float | None:
    """The mean over the GPUs of a replica; nothing where one of them cannot be measured."""
    gpu = pod.get("gpu")
    if not isinstance(gpu, dict) or gpu.get("available") is not True or not isinstance(gpu.get("devices"), list):
        return None
    values = [device.get("utilization") for device in gpu["devices"] if isinstance(device, dict)]
    figures = [value for value in values if is_figure(value)]
    if not figures or len(figures) < len(values):
        return None
    return sum(figures) / len(figures)


METRICS: Final[Mapping[str, Callable[[Pod], float | None]]] = {
    "RequestsInFlight": _requests,
    "QueueDepth": lambda pod: _number(pod, "waiting"),
    "KVCacheUtilization": _percent("kvCacheUtilization"),
    "GPUUtilization": _gpu,
    "CPUUtilization": _percent("cpuUtilization"),
    "TokensPerSecond": lambda pod: _number(pod, "tokensPerSecond"),
}
"""Each figure by its name in the resource, as one replica tells it; None where it does not."""

_HELD_TOO: Final = frozenset({"RequestsInFlight", "QueueDepth"})
"""Those that requests which wait at the gateways belong to."""
