"""What one gateway knows, put together from the lines of its `/telemetry?watch`. No sockets here.

The wire format is in `docs/contracts.md`, "Gateway -> operator".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeAlias

import orjson

from moorage_operator.manifest import Key
from moorage_operator.plan.figures import Device, PodFigures, PodGpu, RevisionFigures
from moorage_operator.plan.times import from_text

Models: TypeAlias = "dict[Key, ModelView]"


class BadLineError(ValueError):
    """A line is not what gateways and operators have agreed on."""


@dataclass(frozen=True, slots=True)
class ModelView:
    """One gateway's view of one deployment."""

    revisions: tuple[RevisionFigures, ...] = ()
    pods: tuple[PodFigures, ...] = ()
    held: int = 0
    quiet_since: datetime | None = field(default=None, compare=False)
    """When it last had a request, by our clock, as of the line that said so: told again it may differ by a moment."""

    @property
    def facts(self) -> object:
        """What decisions cannot wait for: weights, targets, whether requests are held, and whether GPUs answer."""
        routes = [(one.number, one.weight, one.targets) for one in self.revisions]
        gpus = [(pod.uid, pod.gpu.available, pod.gpu.reason) for pod in self.pods if pod.gpu is not None]
        return routes, self.held > 0, gpus


NOTHING = ModelView()


@dataclass(frozen=True)
class News:
    """What a line brought."""

    facts: frozenset[Key]
    """Deployments with other weights, targets or GPUs."""
    figures: frozenset[Key]
    """Deployments with nothing but other figures."""


class View:
    """One gateway's view of all deployments: each line replaces what it speaks of."""

    def __init__(self) -> None:
        """Know nothing."""
        self.started = ""
        self.certificate = ""
        """By which it proves itself when it serves metrics; empty while it does not."""
        self.ttft_bounds: tuple[float, ...] = ()
        self.itl_bounds: tuple[float, ...] = ()
        self._models: Models = {}

    def of(self, key: Key) -> ModelView:
        """Its view of one deployment; nothing of one that it does not know."""
        return self._models.get(key, NOTHING)

    def __len__(self) -> int:
        """How many deployments it knows."""
        return len(self._models)

    def take(self, line: bytes, arrived: datetime) -> News:
        """Take in a line, whole or not at all. Its times are put on the clock that says when it `arrived`.

        Raises:
            BadLineError: it is none, or it continues something that was never begun.
        """
        try:
            said = orjson.loads(line)
            ahead = arrived - from_text(said["time"]) if "time" in said else None
            models = dict(_model(raw, arrived, ahead) for raw in said["models"])
            removed = [_key(text) for text in said["removed"]]
            started, whole = str(said["started"]), bool(said["whole"])
            bounds = _bounds(said["buckets"])
            certificate = str(said.get("certificate", ""))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BadLineError(f"not understood: {type(error).__name__}: {error}") from error
        if not whole and started != self.started:
            raise BadLineError(f"goes on with what began at {started}, which was never told as a whole")
        self.started, (self.ttft_bounds, self.itl_bounds), self.certificate = started, bounds, certificate
        return self._merge(models, self._models.keys() - models.keys() if whole else removed)

    def _merge(self, models: Models, removed: Any) -> News:
        changed = {key: (self._models.get(key), model) for key, model in models.items()}
        changed |= {key: (self._models.get(key), None) for key in removed}
        for key in removed:
            self._models.pop(key, None)
        self._models |= models
        facts = {key for key, (before, now) in changed.items() if _facts(before) != _facts(now)}
        figures = {key for key, (before, now) in changed.items() if before != now}
        return News(frozenset(facts), frozenset(figures - facts))


def _facts(model: ModelView | None) -> object:
    return None if model is None else model.facts


def _key(text: str) -> Key:
    namespace, name = text.split("/")
    return Key(namespace, name)


def _bounds(raw: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(map(float, raw["ttft"])), tuple(map(float, raw["itl"]))


def _model(raw: Mapping[str, Any], arrived: datetime, ahead: timedelta | None) -> tuple[Key, ModelView]:
    revisions = tuple(_revision(one) for one in raw["revisions"])
    pods = tuple(_pod(one) for one in raw["pods"])
    view = ModelView(revisions, pods, int(raw.get("held", 0)), _quiet_since(raw.get("lastDemand"), arrived, ahead))
    return Key(raw["namespace"], raw["deployment"]), view


def _quiet_since(told: str | None, arrived: datetime, ahead: timedelta | None) -> datetime | None:
    """The time of the last request by our clock, which is `ahead` of the gateway's; None where it does not tell."""
    return None if told is None or ahead is None else min(arrived, from_text(told) + ahead)


def _revision(raw: Mapping[str, Any]) -> RevisionFigures:
    return RevisionFigures(
        number=int(raw["number"]),
        weight=int(raw["weight"]),
        targets=frozenset(raw["targets"]),
        in_flight=int(raw["inFlight"]),
        requests=int(raw["requests"]),
        errors=int(raw["errors"]),
        ttft=tuple(map(int, raw["ttft"])),
        itl=tuple(map(int, raw["itl"])),
    )


def _pod(raw: Mapping[str, Any]) -> PodFigures:
    """A figure that is not known is not there."""
    return PodFigures(
        uid=str(raw["uid"]),
        running=int(raw.get("running", 0)),
        waiting=int(raw.get("waiting", 0)),
        tokens_per_second=float(raw.get("tokensPerSecond", 0.0)),
        gpu=_gpu(raw.get("gpu")),
    )


def _gpu(raw: Any) -> PodGpu | None:
    """As the replica's own engine says, whatever that is: what is not understood of one must not hide the others."""
    try:
        return PodGpu(
            available=bool(raw["available"]),
            reason=str(raw.get("reason", "")),
            message=str(raw.get("message", "")),
            devices=tuple(_device(one) for one in raw.get("devices", ())),
        )
    except (TypeError, KeyError, ValueError, AttributeError):
        return None


def _device(raw: Mapping[str, Any]) -> Device:
    """What NVML cannot measure on a device (null) is 0."""
    return Device(
        utilization=float(raw["utilization"] or 0),
        memory_used_mib=float(raw["memoryUsedMiB"] or 0),
        memory_total_mib=float(raw["memoryTotalMiB"] or 0),
        temperature=float(raw["temperature"] or 0),
        power_watts=float(raw["powerWatts"] or 0),
    )
