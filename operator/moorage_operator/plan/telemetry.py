"""GPU and traffic figures for the status, damped: status is no place for what changes every second.

They are written when they have changed by a good part, and at most once a minute; the live figures are in Prometheus.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from moorage_api.conditions import ConditionStatus, Reason
from moorage_api.status import Condition, Gpu, Traffic
from moorage_operator.plan.figures import Device, PodFigures
from moorage_operator.plan.finding import Finding
from moorage_operator.plan.remembered import remembered, remembered_moment
from moorage_operator.plan.routable import Routing

INTERVAL: Final = timedelta(seconds=60)
_POINTS: Final = 5
_PART: Final = 0.2
_PERCENTAGES: Final = frozenset({"utilization", "memory", "temperature"})


@dataclass(frozen=True)
class Measured:
    """What is to be reported, and when to look again because it was too early to."""

    gpu: Gpu | None
    traffic: Traffic | None
    at: datetime | None
    wake: float | None = None


def measured(routing: Routing, before: Any, now: datetime) -> Measured:
    """The figures to report; `before` is the whole status that was last written."""
    pods = _pods(routing)
    gpu, traffic = _gpu(pods), _traffic(pods)
    at = remembered_moment(before.get("measured"))
    was = Measured(remembered(Gpu, before.get("gpu")), remembered(Traffic, before.get("traffic")), at)
    if not _differs(was.gpu, gpu) and not _differs(was.traffic, traffic):
        return was
    left = (was.at + INTERVAL - now).total_seconds() if was.at is not None else 0.0
    if left > 0:
        return Measured(was.gpu, was.traffic, was.at, left)
    return Measured(gpu, traffic, now.replace(microsecond=0))


@dataclass(frozen=True)
class Health:
    """Whether the GPUs work, None while nobody knows; why, and the seconds until it is to be looked at again."""

    well: bool | None
    why: Finding
    wake: float | None = None


def health(routing: Routing, without: frozenset[str], before: Condition | None, now: datetime) -> Health:
    """The health of the GPUs; `without` are the uids of replicas that are to have none.

    A failure is told at once. That all are well again, or that nobody knows any more, is told a minute later than
    `before`, the condition that was last written, told of it: a GPU that comes and goes is not well, and must not be
    written about at each turn; nor must one whose replica is now in the gateways' figures and now is not.
    """
    found = _health(routing, without)
    if found.well is False or before is None or before.status is not ConditionStatus.FALSE:
        return found
    left = (before.last_transition_time + INTERVAL - now).total_seconds()
    why = Finding(Reason.GPU_UNHEALTHY, before.message)
    return Health(well=False, why=why, wake=left) if left > 0 else found


def _health(routing: Routing, without: frozenset[str]) -> Health:
    told = [pod.gpu for pod in _pods(routing) if pod.gpu is not None and pod.uid not in without]
    bad = next((gpu for gpu in told if not gpu.available), None)
    if bad is not None:
        return Health(well=False, why=Finding(Reason.GPU_UNHEALTHY, f"{bad.reason}: {bad.message}"))
    if not told:
        return Health(well=None, why=Finding(Reason.GPU_NOT_MEASURED, Reason.GPU_NOT_MEASURED.explanation))
    count = sum(len(gpu.devices) for gpu in told)
    return Health(well=True, why=Finding(Reason.GPU_MEASURED, f"{count} GPUs of {len(told)} replicas answer."))


def _pods(routing: Routing) -> tuple[PodFigures, ...]:
    """Each pod once, as the first gateway that knows it tells of it."""
    by_uid: dict[str, PodFigures] = {}
    for gateway in routing.answering:
        for pod in gateway.pods:
            by_uid.setdefault(pod.uid, pod)
    return tuple(by_uid.values())


def _gpu(pods: tuple[PodFigures, ...]) -> Gpu | None:
    devices: list[Device] = [device for pod in pods if pod.gpu is not None for device in pod.gpu.devices]
    if not devices:
        return None
    total = sum(device.memory_total_mib for device in devices)
    return Gpu(
        utilization=round(sum(device.utilization for device in devices) / len(devices)),
        memory=round(100 * sum(device.memory_used_mib for device in devices) / total) if total else 0,
        devices=len(devices),
        temperature=round(max(device.temperature for device in devices)),
        power_watts=round(sum(device.power_watts for device in devices)),
    )


def _traffic(pods: tuple[PodFigures, ...]) -> Traffic | None:
    if not pods:
        return None
    return Traffic(
        tokens_per_second=round(sum(pod.tokens_per_second for pod in pods)),
        running=sum(pod.running for pod in pods),
        waiting=sum(pod.waiting for pod in pods),
    )


def _differs(before: Gpu | Traffic | None, now: Gpu | Traffic | None) -> bool:
    """By five points of a percentage, or by a fifth of a number."""
    if before is None or now is None:
        return before is not now
    return any(
        abs(getattr(now, name) - getattr(before, name)) >= _step(name, getattr(before, name))
        for name in type(now).model_fields
    )


def _step(name: str, before: int) -> float:
    return _POINTS if name in _PERCENTAGES else max(1.0, _PART * before)
