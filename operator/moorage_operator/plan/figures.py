"""What gateways and the runtimes behind them measured, as frozen values: one `Gateway` per gateway pod.

All counts are cumulative since that gateway's start (`started` tells a restart); a rate or a percentile over a span of
time is the difference of two views. Buckets are those of a Prometheus histogram, each count its own (not summed up).
"""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Device:
    """One GPU of a pod, as NVML measures it."""

    utilization: float
    """Share of time in which it computes, in percent."""
    memory_used_mib: float
    memory_total_mib: float
    temperature: float
    """Degrees Celsius."""
    power_watts: float


@dataclass(frozen=True)
class PodGpu:
    """The GPUs of one pod; `devices` only when `available`."""

    available: bool
    reason: str = ""
    """Why they cannot be measured, in one word, such as `NVMLNotFound` or `GPULost`."""
    message: str = ""
    devices: tuple[Device, ...] = ()


@dataclass(frozen=True)
class PodFigures:
    """What one serving pod does."""

    uid: str
    running: int = 0
    waiting: int = 0
    tokens_per_second: float = 0.0
    gpu: PodGpu | None = None


@dataclass(frozen=True)
class RevisionFigures:
    """What one gateway knows of one revision of this deployment."""

    number: int
    weight: int = 0
    """Percent of new requests that this gateway sends to it."""
    targets: frozenset[str] = frozenset()
    """UIDs of the pods that this gateway has in its table."""
    in_flight: int = 0
    requests: int = 0
    """Finished ones."""
    errors: int = 0
    """Of these: answers >= 500, failed connections, streams that ended with an error."""
    ttft: tuple[int, ...] = ()
    """Times to first token by bucket; the last one is everything above `Gateway.ttft_bounds`."""
    itl: tuple[int, ...] = ()
    """Times between tokens, likewise."""


@dataclass(frozen=True)
class Gateway:
    """One gateway pod's view of this deployment."""

    name: str
    started: str
    """RFC 3339."""
    answering: bool = True
    """Whether its heartbeat is fresh. Of one that does not answer the last view is no longer believed."""
    revisions: tuple[RevisionFigures, ...] = ()
    pods: tuple[PodFigures, ...] = ()
    ttft_bounds: tuple[float, ...] = ()
    """Upper bounds of the buckets in seconds, without the infinite one."""
    itl_bounds: tuple[float, ...] = ()
    ready: bool = True
    """Whether clients are sent to it."""
    held: int = 0
    """Requests that wait at it, since nothing serves them."""
    quiet_since: datetime | None = None
    """When it last had a request of this deployment, by the operator's clock; since its start where it never had one.
    None: it does not say, or does not know the deployment."""
    heard: datetime | None = None
    """When it last said something, by the operator's clock. What is said is true until then."""

    def of(self, number: int) -> RevisionFigures:
        """Its figures of a revision; nothing of one that it does not know."""
        return next((one for one in self.revisions if one.number == number), RevisionFigures(number))
