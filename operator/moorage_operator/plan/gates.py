"""Gates: figures of the candidate that must be good enough before a rollout goes on.

Each gives None, `Blocked` (too little is known: never a reason to go back) or `Failed`. Judged is what was counted
since the stage began: the difference between the gateways' figures now and those that were written down then.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from moorage_api.duration import duration_value, percentage_value
from moorage_api.rollout import Gate
from moorage_api.status import WindowFigures
from moorage_operator.plan.figures import Gateway, RevisionFigures
from moorage_operator.plan.times import from_text


@dataclass(frozen=True)
class Blocked:
    """Nothing can be said yet."""

    message: str


@dataclass(frozen=True)
class Failed:
    """The candidate is worse than allowed."""

    message: str


@dataclass(frozen=True)
class Totals:
    """What all gateways counted of one revision in one span of time."""

    requests: int = 0
    errors: int = 0
    ttft: tuple[int, ...] = ()
    itl: tuple[int, ...] = ()
    ttft_bounds: tuple[float, ...] = ()
    itl_bounds: tuple[float, ...] = ()


def window(gateways: Iterable[Gateway], numbers: Iterable[int]) -> tuple[WindowFigures, ...]:
    """What the gateways have counted until now, to be written down when a stage begins."""
    numbers = tuple(numbers)
    return tuple(
        WindowFigures(
            gateway=gateway.name,
            started=gateway.started,
            number=number,
            requests=figures.requests,
            errors=figures.errors,
            ttft=figures.ttft,
            itl=figures.itl,
        )
        for gateway in gateways
        for number in numbers
        for figures in (gateway.of(number),)
    )


def completed(
    written: tuple[WindowFigures, ...], gateways: Iterable[Gateway], numbers: Iterable[int], moment: datetime
) -> tuple[WindowFigures, ...]:
    """What was `written` down at `moment`, and what gateways that are not in it have counted until now.

    They did not answer then, or there was no gate to count for: they count from now on. Those that started later count
    from their start, and need no entry.
    """
    known = {(one.gateway, one.started) for one in written}
    late = (one for one in gateways if (one.name, one.started) not in known and from_text(one.started) < moment)
    return (*written, *window(late, numbers))


def since(gateways: tuple[Gateway, ...], number: int, begun: tuple[WindowFigures, ...], moment: datetime) -> Totals:
    """What was counted of a revision since `moment`, when `begun` was written down.

    Of a gateway that is not in `begun`, because it did not answer then, nobody knows how much is older: it counts only
    if it started later.
    """
    before = {(one.gateway, one.started, one.number): one for one in begun}
    totals = Totals()
    for gateway in gateways:
        base = before.get((gateway.name, gateway.started, number))
        if base is not None or from_text(gateway.started) >= moment:
            totals = _added(totals, gateway, gateway.of(number), base)
    return totals


def all_along(gateways: tuple[Gateway, ...], number: int) -> Totals:
    """Everything that was counted of a revision since each gateway started."""
    totals = Totals()
    for gateway in gateways:
        totals = _added(totals, gateway, gateway.of(number), None)
    return totals


def until(gateways: tuple[Gateway, ...], number: int, written: tuple[WindowFigures, ...]) -> Totals:
    """What had been counted of a revision when `written` was written down, since each gateway's start.

    It is read from there, and not from the gateways, so that one that starts anew forgets nothing.
    """
    bounds = next(((one.ttft_bounds, one.itl_bounds) for one in gateways), ((), ()))
    totals = Totals(ttft_bounds=bounds[0], itl_bounds=bounds[1])
    for one in written:
        if one.number == number:
            totals = replace(
                totals,
                requests=totals.requests + one.requests,
                errors=totals.errors + one.errors,
                ttft=_sum(totals.ttft, one.ttft),
                itl=_sum(totals.itl, one.itl),
            )
    return totals


def unmeasured(gates: Iterable[Gate], stable: Totals) -> Blocked | None:
    """Whether too little is known of the stable revision to compare with it, once it has no requests any more."""
    comparing = (gate for gate in gates if gate.max_regression is not None)
    return next((short for gate in comparing if (short := _unknown(gate, stable)) is not None), None)


def _too_few(gate: Gate, totals: Totals) -> Blocked | None:
    """Whether too little was counted to judge. Only streams have times, and each has one first token."""
    if gate.metric == "ErrorRate":
        seen, what = totals.requests, "requests"
    else:
        seen, what = sum(totals.ttft), "streams"
    if seen >= gate.min_requests:
        return None
    return Blocked(f"{gate.metric}: {_roughly(seen, gate.min_requests)} of {gate.min_requests} {what} seen")


def _roughly(seen: int, needed: int) -> str:
    """By tenths of what is needed: one that changed with every request would be written each second, for hours."""
    tenth = max(1, needed // 10)
    known = seen // tenth * tenth
    return str(known) if known == seen else f"more than {known}"


def _unknown(gate: Gate, stable: Totals) -> Blocked | None:
    short = _too_few(gate, stable)
    return None if short is None else Blocked(f"{short.message} of the revision to compare with")


def judge(gate: Gate, candidate: Totals, stable: Totals) -> Blocked | Failed | None:
    """Judge one gate; None when it holds."""
    if (short := _too_few(gate, candidate)) is not None:
        return short
    if gate.max_regression is not None and (short := _unknown(gate, stable)) is not None:
        return short
    if gate.max is not None and gate.max.endswith("%") != (gate.metric == "ErrorRate"):
        return Blocked(f"{gate.metric} cannot be compared with {gate.max}")  # admitted by an older schema
    if gate.metric == "ErrorRate":
        return _error_rate(gate, candidate)
    return _latency(gate, candidate, stable)


def _error_rate(gate: Gate, candidate: Totals) -> Failed | None:
    rate = candidate.errors / candidate.requests
    if rate <= percentage_value(gate.max or "0%"):
        return None
    counted = f"{candidate.errors} of {candidate.requests} requests"
    return Failed(f"ErrorRate is {rate:.2%} ({counted}), more than {gate.max}")


def _latency(gate: Gate, candidate: Totals, stable: Totals) -> Blocked | Failed | None:
    found = _percentile(gate, candidate)
    if found is None:
        return Blocked(f"{gate.metric}: no gateway has measured it")
    if gate.max is not None:
        allowed, against = duration_value(gate.max).total_seconds(), gate.max
    else:
        reference = _percentile(gate, stable)
        if reference is None:
            return Blocked(f"{gate.metric}: no gateway has measured the revision to compare with")
        allowed = reference * (1 + percentage_value(gate.max_regression or "0%"))
        against = f"{_seconds(reference)} and {gate.max_regression}"
    return Failed(f"{gate.metric} is {_seconds(found)}, more than {against}") if found > allowed else None


def _percentile(gate: Gate, totals: Totals) -> float | None:
    first = gate.metric.startswith("TimeToFirstToken")
    bounds, counts = (totals.ttft_bounds, totals.ttft) if first else (totals.itl_bounds, totals.itl)
    return percentile(bounds, counts, int(gate.metric[-2:]) / 100)


def percentile(bounds: tuple[float, ...], counts: tuple[int, ...], share: float) -> float | None:
    """The percentile in seconds, by linear interpolation inside its bucket; None when nothing was counted.

    Above the last bound nothing is known but that it is more: infinity.
    Source: https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile
    """
    rank = share * sum(counts)
    if not rank:
        return None
    seen, low = 0, 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count and seen + count >= rank:
            return low + (bound - low) * (rank - seen) / count
        seen, low = seen + count, bound
    return math.inf


def _added(totals: Totals, gateway: Gateway, now: RevisionFigures, base: WindowFigures | None) -> Totals:
    """Add what one gateway counted. Of one with other buckets (another version) the latencies are left aside."""
    fresh = not totals.ttft_bounds
    ttft_bounds = gateway.ttft_bounds if fresh else totals.ttft_bounds
    itl_bounds = gateway.itl_bounds if fresh else totals.itl_bounds
    same = (ttft_bounds, itl_bounds) == (gateway.ttft_bounds, gateway.itl_bounds)
    ttft = _difference(now.ttft, base.ttft if base else ())
    itl = _difference(now.itl, base.itl if base else ())
    return Totals(
        requests=totals.requests + max(0, now.requests - (base.requests if base else 0)),
        errors=totals.errors + max(0, now.errors - (base.errors if base else 0)),
        ttft=_sum(totals.ttft, ttft) if same else totals.ttft,
        itl=_sum(totals.itl, itl) if same else totals.itl,
        ttft_bounds=ttft_bounds,
        itl_bounds=itl_bounds,
    )


def _difference(now: tuple[int, ...], before: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(max(0, a - b) for a, b in zip(now, before, strict=True)) if len(now) == len(before) else now


def _sum(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True)) if len(one) == len(other) else one or other


def _seconds(value: float) -> str:
    if math.isinf(value):
        return "above the largest bucket"
    return f"{value * 1000:.0f}ms" if value < 1 else f"{value:.2f}s"
