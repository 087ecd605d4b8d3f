"""Scale to zero: when a deployment that nobody asks for goes to no replica at all, and what wakes it.

Nobody writes spec.replicas for that: the autoscaler's number stays. The next request starts one replica, or as many as
those that wait ask for, and the number counts again once it is of after that. What is remembered is when it fell asleep
and when it woke (`moorage.dev/asleep`, `moorage.dev/woken` on the stable revision's record). That decides, too, what an
unfinished rollout does at zero: a candidate that is younger than the sleep proves itself with one replica; an older one
had begun to among requests, and goes on with the next.

    awake ── nobody asks for idleAfter, as all gateways say ──▶ idle ── no replica is awaited ──▶ asleep
    asleep ── a request is held ──▶ awake          asleep ── spec changes ──▶ proving ──▶ awake, with it as stable
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from math import ceil
from typing import Final
from zlib import crc32

from moorage_api.autoscaling import Autoscaling
from moorage_api.duration import duration_value
from moorage_api.quantity import quantity_value
from moorage_operator.plan.demand import Demand
from moorage_operator.plan.pods import Replica
from moorage_operator.plan.times import from_text
from moorage_operator.render.record import Standing

_NEXT_WORD: Final = timedelta(seconds=5)
"""From a gateway's word to its next, at the latest: it says at least every 4 s that it is there."""
_SPREAD: Final = 0.05
"""Part of idleAfter over which models that fall idle together do so one after the other, as after a gateway's start."""
_MEASURED: Final = timedelta(seconds=60)
"""In which an autoscaler, which looks every 15 s, has seen the figures of a replica that is up."""
_RARELY: Final = 15.0
"""The same, at least, where it may take long until they answer again. That one does is told at once besides."""


class Mode(StrEnum):
    """What a deployment's number of replicas follows."""

    FIXED = "fixed"
    """spec.replicas, whether anybody asks or not."""
    AWAKE = "awake"
    """The same, at least one, until nobody asks any more."""
    IDLE = "idle"
    """The same still. Nobody has asked for long enough: it goes to zero unless a rollout awaits a replica."""
    ASLEEP = "asleep"
    """Nothing, until somebody asks."""
    PROVING = "proving"
    """Nothing but one replica of a new revision, which becomes the stable one once it is routable."""


@dataclass(frozen=True)
class Scale:
    """How many replicas shall serve, and why."""

    wanted: int
    mode: Mode = Mode.FIXED
    reason: str = ""
    """What it follows from; empty where it is what spec says."""
    wakes: tuple[float, ...] = ()
    """Seconds after which time alone may change it."""

    @property
    def asleep(self) -> bool:
        """Whether nothing shall run until somebody asks."""
        return self.mode is Mode.ASLEEP

    @property
    def proves(self) -> bool:
        """Whether nothing shall run but a new revision's first replica."""
        return self.mode is Mode.PROVING


@dataclass(frozen=True)
class Inputs:
    """What the decision depends on."""

    replicas: int
    """spec.replicas."""
    written: datetime | None
    """When somebody last wrote that; None where it is not known."""
    content: bool
    """Whether the autoscaler measures, and what runs is enough by it."""
    autoscaling: Autoscaling | None
    readable: bool
    """Whether spec can be used; while it cannot, the deployment stays as it is, and is woken all the same."""
    through_gateways: bool
    """Whether requests come through gateways. Past them nothing could be woken."""
    demand: Demand
    stable: Standing | None
    candidate: Standing | None
    there: tuple[Replica, ...]
    running: int
    """How many replicas the workload of the stable revision asks for, or the candidate's."""
    patience: timedelta
    """How long a replica may take to come up before it counts for nothing that it is still on its way."""
    now: datetime
    uid: str = ""
    """Of the deployment."""


def decide(inputs: Inputs) -> Scale:
    """How many replicas shall serve."""
    if not _may_sleep(inputs):
        return Scale(inputs.replicas)
    if inputs.stable is None:
        return Scale(_few(inputs), Mode.AWAKE, "no revision has served yet")
    if inputs.stable.asleep and not inputs.demand.there:
        return _at_zero(inputs, inputs.stable)
    wanted, left = _number(inputs, inputs.stable)
    scale = _asked_for(inputs, wanted) if inputs.demand.there else _awake(inputs, wanted)
    return replace(scale, wakes=(*scale.wakes, *left))


def fallen_asleep(scale: Scale) -> Scale:
    """The same once nothing shall run."""
    return Scale(0, Mode.ASLEEP, scale.reason)


def returns(candidate: Standing) -> bool:
    """Whether a person goes back to a revision that has served: at zero there is nothing to prove then."""
    return candidate.goes_back and not candidate.paused and bool(candidate.promoted)


def _may_sleep(inputs: Inputs) -> bool:
    """Whether zero is for the gateways to decide. A person's `replicas: 0` is none of it: that stops the model."""
    if not inputs.through_gateways:
        return False
    if not inputs.readable:
        return inputs.stable is not None and bool(inputs.stable.asleep)
    return bool(inputs.replicas) and inputs.autoscaling is not None and not inputs.autoscaling.min_replicas


def _number(inputs: Inputs, stable: Standing) -> tuple[int, tuple[float, ...]]:
    """spec.replicas once it is of this waking; until then what the requests ask for, and no fewer than there are.

    What was written before the wake was for the load before the sleep, and an autoscaler that goes by the load of now
    may hold on to it for minutes. So it counts when it was written since, or when a replica has been up for long enough
    to be measured and that autoscaler finds what runs too little, or cannot tell.
    """
    whole, few = max(1, inputs.replicas), _few(inputs)
    if stable.asleep:
        return few, ()
    if not stable.woken or (inputs.written is not None and inputs.written > from_text(stable.woken)):
        return whole, ()
    up = min((one.ready_since for one in inputs.there if one.ready_since is not None), default=None)
    if up is None:
        return few, ()
    left = (up + _MEASURED - inputs.now).total_seconds()
    return (few, (left,)) if left > 0 or inputs.content else (whole, ())


def _few(inputs: Inputs) -> int:
    """As many as the requests ask for, no fewer than have been started: one proves a model."""
    return min(max(1, inputs.replicas), max(1, inputs.running, _by_requests(inputs)))


def _by_requests(inputs: Inputs) -> int:
    """How many replicas the requests of now ask for, as the autoscaler would count them."""
    targets = inputs.autoscaling.targets if inputs.autoscaling is not None else ()
    each = next((one.average_value for one in targets if one.metric == "RequestsInFlight"), None)
    return 1 if each is None else ceil((inputs.demand.held + inputs.demand.in_flight) / quantity_value(each))


def _asked_for(inputs: Inputs, wanted: int) -> Scale:
    why = _asked(inputs.demand)
    if wanted < inputs.replicas:
        why = f"{why}; spec.replicas {inputs.replicas} is of before the sleep"
    return Scale(wanted, Mode.AWAKE, why, _while_asked(inputs.autoscaling))


def _at_zero(inputs: Inputs, stable: Standing) -> Scale:
    slept, candidate = from_text(stable.asleep), inputs.candidate
    quiet = inputs.demand.quiet_since
    known = f", the last one was at {_clock(quiet)}" if quiet is not None and quiet <= slept else ""
    why = f"asleep since {_clock(slept)}: nobody had asked for {_idle_after(inputs)}{known}{_seen_by(inputs.demand)}"
    if candidate is None or from_text(candidate.since) < slept or returns(candidate):
        return Scale(0, Mode.ASLEEP, why)
    return Scale(1, Mode.PROVING, f"a new revision proves itself; {why}")


def _awake(inputs: Inputs, wanted: int) -> Scale:
    demand, idle_after = inputs.demand, _idle_time(inputs.autoscaling)
    if idle_after is None:
        return Scale(wanted, Mode.AWAKE, "spec.autoscaling says no idleAfter")
    if demand.quiet_since is None or demand.heard is None:
        often = max(_RARELY, idle_after.total_seconds() / 4)
        return Scale(wanted, Mode.AWAKE, f"{demand.unknown}, so nobody knows whether it is used", (often,))
    up = _up_since(inputs, demand.quiet_since)
    if up is None:
        return Scale(wanted, Mode.AWAKE, "its first replica is on its way")
    due = max(demand.quiet_since, up) + idle_after * (1 + _SPREAD * _place(inputs.uid))
    if demand.heard < due:
        left = (max(due, demand.heard + _NEXT_WORD) - inputs.now).total_seconds()
        left = left if left > 0 else _NEXT_WORD.total_seconds()
        return Scale(wanted, Mode.AWAKE, f"the last request was at {_clock(demand.quiet_since)}", (left,))
    why = f"nobody has asked for {_idle_after(inputs)}, the last request was at {_clock(demand.quiet_since)}"
    return Scale(wanted, Mode.IDLE, f"{why}{_seen_by(demand)}")


def _place(uid: str) -> float:
    """Where among all deployments this one is, in [0, 1)."""
    return crc32(uid.encode()) / 2**32


def _up_since(inputs: Inputs, otherwise: datetime) -> datetime | None:
    """From when on idleness counts: since it answers. One that does not come up is not waited for without end.

    None while there is nothing that could come up.
    """
    if any(one.ready for one in inputs.there):
        return min((one.ready_since for one in inputs.there if one.ready_since is not None), default=otherwise)
    begun = min((one.born for one in inputs.there if one.born is not None), default=None)
    return None if begun is None else begun + inputs.patience


def _while_asked(autoscaling: Autoscaling | None) -> tuple[float, ...]:
    """That the last request is over is told to nobody; it cannot be idle before that."""
    idle_after = _idle_time(autoscaling)
    return () if idle_after is None else (idle_after.total_seconds(),)


def _idle_time(autoscaling: Autoscaling | None) -> timedelta | None:
    if autoscaling is None or autoscaling.idle_after is None:
        return None
    return duration_value(autoscaling.idle_after)


def _idle_after(inputs: Inputs) -> str:
    autoscaling = inputs.autoscaling
    return autoscaling.idle_after if autoscaling is not None and autoscaling.idle_after is not None else "idleAfter"


def _asked(demand: Demand) -> str:
    """How many requests there are, in words."""
    waiting = f"{demand.held} {'request waits' if demand.held == 1 else 'requests wait'} at the gateways"
    running = f"{demand.in_flight} {'is' if demand.in_flight == 1 else 'are'} in flight"
    return f"{waiting}, {running}"


def _seen_by(demand: Demand) -> str:
    if not demand.gateways:
        return ""
    return f" ({demand.gateways} {'gateway' if demand.gateways == 1 else 'gateways'} asked)"


def _clock(moment: datetime) -> str:
    return f"{moment:%H:%M:%S} UTC"
