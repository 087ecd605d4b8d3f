"""The figures that autoscalers ask for: the sum over a model's serving replicas, out of what all gateways tell. Pure.

What is not known is not told: never zero, and of no more than a fifth of the replicas is it guessed. Of a model that
sleeps all of it is known to be zero, and told: an autoscaler that misses one of its metrics scales nothing down.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from moorage_api.conditions import Reason
from moorage_gateway.report import is_figure
from moorage_gateway.table import Model, serving

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
        heard: When they told it, in seconds on the reader's clock; no entry where the gateway does not say.
    """

    held: int
    in_flight: Mapping[int, int]
    pods: Mapping[str, Pod]
    heard: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unknown:
    """There is no figure, and why."""

    reason: str


def read(raw: Mapping[str, Any], time: str, now: float) -> Told:
    """Read a model of a view. A gateway of an older version tells of no held requests: it holds none.

    Args:
        raw: As it is in the view.
        time: The gateway's clock as the view was told; empty: it does not say.
        now: The reader's clock as it arrived.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: it is no view's.
    """
    return Told(
        held=int(raw.get("held", 0)),
        in_flight={int(each["number"]): int(each["inFlight"]) for each in raw["revisions"]},
        pods={str(pod["uid"]): pod for pod in raw["pods"]},
        heard={str(pod["uid"]): now - _since(pod["at"], time) for pod in raw["pods"] if time and "at" in pod},
    )


def figure(metric: str, model: Model, told: Sequence[Told], *, silent: Sequence[Told | None] = ()) -> float | Unknown:
    """One figure of one model, over all of its replicas that requests are sent to.

    Args:
        metric: One of `METRICS`.
        model: Which replicas it has.
        told: What each gateway says.
        silent: What those said last that clients are sent to, and that do not answer; None: nothing of this model.
    """
    replicas = [target.key for _, targets in serving(model.revisions) for target in targets]
    if not replicas:
        return _without_replicas(metric, model, told, is_complete=not silent)
    known = [value for uid in replicas if (value := _known(metric, uid, told)) is not None]
    mute = len(replicas) - len(known)
    if mute * _SILENT_PARTS > len(replicas):
        return Unknown(f"{mute} of {len(replicas)} replicas have told no such figure lately")
    if metric in _HELD_TOO and any(each is not None and each.held for each in silent):
        return Unknown("a gateway at which requests waited does not answer")
    total = sum(known) * len(replicas) / len(known)
    if metric == "RequestsInFlight":
        total = max(total, _in_flight(model, told))
    return total + (_held(told) if metric in _HELD_TOO else 0)


def _without_replicas(metric: str, model: Model, told: Sequence[Told], *, is_complete: bool) -> float | Unknown:
    """What sleeps does nothing, but requests may wait for it. What has lost its replicas is not known to do nothing.

    Who asked may have given up: only that there are requests is known then, never that there are none.
    """
    asleep = model.reason == Reason.SCALED_TO_ZERO
    if metric in _HELD_TOO and not is_complete:
        return Unknown("no replica serves, and not every gateway says how many requests wait")
    there = _held(told) if metric in _HELD_TOO else 0
    if metric == "RequestsInFlight":
        there += _in_flight(model, told)
    return float(there) if there or asleep else Unknown("no replica serves")


def quantity(value: float) -> str:
    """A figure as Kubernetes writes it: whole, or in thousandths."""
    thousandths = round(value * 1000)
    whole, rest = divmod(thousandths, 1000)
    return f"{thousandths}m" if rest else str(whole)


def _held(told: Sequence[Told]) -> int:
    return sum(each.held for each in told)


def _in_flight(model: Model, told: Sequence[Told]) -> int:
    """Counted by the gateways themselves, so true at once; what replicas say is up to seconds old, but says all.

    Those of a revision that has weight count while it has no replica, too: they are not over.
    """
    numbers = {each.number for each in model.revisions if each.weight}
    numbers.update(revision.number for revision, _ in serving(model.revisions))
    return sum(count for each in told for number, count in each.in_flight.items() if number in numbers)


def _known(metric: str, uid: str, told: Sequence[Told]) -> float | None:
    """What was heard last from that replica, of equally late ones the largest: all gateways give the same answer."""
    values = [
        (each.heard.get(uid, -math.inf), value)
        for each in told
        if (value := METRICS[metric](each.pods.get(uid, {}))) is not None
    ]
    return max(values)[1] if values else None


def _since(then: str, time: str) -> float:
    """Seconds between two times of one clock."""
    return (datetime.fromisoformat(time) - datetime.fromisoformat(then)).total_seconds()


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
