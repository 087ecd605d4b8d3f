"""ScalingActive: whether the number of replicas follows the load, and what is in the way where it does not."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from moorage_api.conditions import ConditionStatus, Reason
from moorage_api.status import Condition
from moorage_operator.manifest import Manifest, dig
from moorage_operator.plan import writers
from moorage_operator.plan.autoscaled import Scaled
from moorage_operator.plan.finding import Finding
from moorage_operator.plan.metrics_api import MetricsApi
from moorage_operator.plan.remembered import remembered_moment

PATIENCE: Final = timedelta(seconds=60)
"""How long an autoscaler may find no metric, while a replica could have told it, before that is said."""
BETWEEN_SYNCS: Final = timedelta(minutes=10)
"""As long as GitOps tools take from one sync to the next, or less."""
_CPU: Final = "CPUUtilization"
_TOO_MANY: Final = "TooManyReplicas"
_LIMITED: Final = "More than maxReplicas"
_BY_ITS_WORD: Final = frozenset({Reason.METRICS_FOUND, Reason.METRICS_MISSING, Reason.SCALING_REFUSED})


@dataclass(frozen=True)
class Scaling:
    """Whether it works, None while nobody knows; why, and the seconds until it is to be looked at again."""

    active: bool | None
    why: Finding
    wake: float | None = None


def scaling(scaled: Scaled, before: Condition | None, now: datetime) -> Scaling:
    """The condition; `before` is the one that was last written."""
    found, cut = _scaling(scaled, before, now), _sentence(scaled.cut)
    if not cut or not scaled.wanted or cut in found.why.message:
        return found
    return replace(found, why=replace(found.why, message=f"{found.why.message} {cut}"))


def _scaling(scaled: Scaled, before: Condition | None, now: datetime) -> Scaling:
    """The same without what the budget cuts, which it does however the number came about."""
    if dig(scaled.deployment, "spec", "replicas", default=1) == 0:
        words = Reason.SCALING_DISABLED.explanation.replace("NAME", scaled.deployment["metadata"]["name"])
        return Scaling(active=False, why=Finding(Reason.SCALING_DISABLED, words))
    if scaled.metrics is None:
        return as_before(before)
    hindrance = _without_metrics(scaled, scaled.metrics) or _refused(scaled.refused) or _two_writers(scaled)
    if hindrance is not None:
        return Scaling(active=False, why=hindrance)
    if before is not None and (left := _applied_lately(before, now)) > 0:
        return replace(as_before(before), wake=left)
    if scaled.wanted == 0:
        words = f"Nothing runs after {scaled.autoscaling.idle_after} without a request; the next one starts a replica."
        return Scaling(active=True, why=Finding(Reason.SCALED_TO_ZERO, words))
    return _by_its_word(scaled, before, now)


def as_before(before: Condition | None) -> Scaling:
    """What was written last stands, while nobody knows better."""
    reason = next((one for one in Reason if before is not None and one == before.reason), None)
    if before is None or reason is None:
        return _waiting(None)
    active = {ConditionStatus.TRUE: True, ConditionStatus.FALSE: False}.get(before.status)
    return Scaling(active=active, why=Finding(reason, before.message))


def _without_metrics(scaled: Scaled, metrics: MetricsApi) -> Finding | None:
    """Why our metrics cannot be had."""
    if not metrics.cluster:
        return Finding(Reason.METRICS_NEED_CLUSTER, Reason.METRICS_NEED_CLUSTER.explanation)
    if metrics.owner:
        return Finding(Reason.METRICS_OWNED_BY_ANOTHER, f"{metrics.owner}. {_instead(scaled, metrics)}")
    if not (metrics.served or metrics.at_hand):
        return Finding(Reason.METRICS_UNSERVED, Reason.METRICS_UNSERVED.explanation)
    return None


def _instead(scaled: Scaled, metrics: MetricsApi) -> str:
    """What goes on all the same."""
    by_cpu = any(target.metric == _CPU for target in scaled.autoscaling.targets)
    if by_cpu and metrics.cpu:
        return f"Only {_CPU} is scaled by, as metrics-server measures it."
    lack = "there is no metrics-server" if by_cpu else f"no target is {_CPU}, which metrics-server measures, too"
    return f"Nothing is scaled by, since {lack}; remove that adapter, or scale by an autoscaler of your own."


def _refused(words: str) -> Finding | None:
    """The API server does not take our autoscaler, or what that writes."""
    if not words:
        return None
    return Finding(Reason.SCALING_REFUSED, f"{_sentence(words)} {Reason.SCALING_REFUSED.explanation}")


def _two_writers(scaled: Scaled) -> Finding | None:
    words = writers.second(scaled.deployment, scaled.autoscaler)
    if scaled.foreign is not None:
        words = f"HorizontalPodAutoscaler {scaled.foreign['metadata']['name']} exists and belongs to somebody else"
    ambiguous = _said(scaled.autoscaler, "ScalingActive")
    if not words and ambiguous.get("reason") == "AmbiguousSelector":
        words = f"the autoscaler says: {ambiguous.get('message', '')}"
    if not words:
        return None
    return Finding(Reason.REPLICAS_OWNED_BY_TWO, f"{_sentence(words)} {Reason.REPLICAS_OWNED_BY_TWO.explanation}")


def _applied_lately(before: Condition, now: datetime) -> float:
    """Seconds for which it is still said that somebody applies the number.

    An autoscaler that writes another one takes the field over, and the API server forgets who applied it, who will do
    so again at the next sync.
    """
    if before.reason != Reason.REPLICAS_OWNED_BY_TWO or writers.APPLIES not in before.message:
        return 0.0
    return (before.last_transition_time + BETWEEN_SYNCS - now).total_seconds()


def _by_its_word(scaled: Scaled, before: Condition | None, now: datetime) -> Scaling:
    """As the autoscaler says itself."""
    bad = next((one for one in _judged(scaled.autoscaler) if one.get("status") == "False"), None)
    if bad is not None:
        if scaled.up_since is None:
            return _waiting(None)  # what starts, or was just woken, has no figures yet
        left = _patience(bad, scaled.up_since, now)
        if left <= 0:
            return Scaling(active=False, why=_in_its_words(bad))
        known = before is not None and before.reason in _BY_ITS_WORD
        return replace(as_before(before) if known else _waiting(None), wake=left)
    if not _said(scaled.autoscaler, "ScalingActive"):
        return _waiting(None)
    limited, unsettled = _limited(scaled.autoscaler, before, now)
    return Scaling(active=True, why=Finding(Reason.METRICS_FOUND, _found(scaled, limited=limited)), wake=unsettled)


def _in_its_words(bad: Manifest) -> Finding:
    """That it cannot read or write the number, or cannot measure."""
    reason = Reason.METRICS_MISSING if bad["type"] == "ScalingActive" else Reason.SCALING_REFUSED
    return Finding(reason, f"{_sentence(str(bad.get('message', bad.get('reason', ''))))} {reason.explanation}")


def _judged(live: Manifest | None) -> tuple[Manifest, ...]:
    return tuple(_said(live, kind) for kind in ("AbleToScale", "ScalingActive"))


def _patience(bad: Manifest, up_since: datetime, now: datetime) -> float:
    told = remembered_moment(bad.get("lastTransitionTime"))
    return (max(up_since, told or up_since) + PATIENCE - now).total_seconds()


def _waiting(left: float | None) -> Scaling:
    return Scaling(active=None, why=_awaited(), wake=left)


def _awaited() -> Finding:
    return Finding(Reason.METRICS_AWAITED, Reason.METRICS_AWAITED.explanation)


def _limited(live: Manifest | None, before: Condition | None, now: datetime) -> tuple[bool, float | None]:
    """Whether maxReplicas keeps it from more, and the seconds until that is to be looked at again.

    A load around what maxReplicas can bear is now above and now below: it is told as it was until that has settled.
    """
    said = _said(live, "ScalingLimited")
    limited, known = said.get("reason") == _TOO_MANY, before is not None and _LIMITED in before.message
    since = remembered_moment(said.get("lastTransitionTime"))
    left = (since + PATIENCE - now).total_seconds() if since is not None else 0.0
    return (known, left) if limited != known and left > 0 else (limited, None)


def _found(scaled: Scaled, *, limited: bool) -> str:
    """By what it scales, between which numbers, and what bounds it now."""
    wish = scaled.autoscaling
    targets = ", ".join(f"{one.metric} {one.average_value}" for one in wish.targets)
    words = f"Between {wish.min_replicas} and {wish.max_replicas} replicas by {targets} per replica."
    if limited:
        words += f" {_LIMITED} ({wish.max_replicas}) would be needed."
    return words


def _said(live: Manifest | None, kind: str) -> Manifest:
    conditions = dig(live, "status", "conditions", default=())
    return next((one for one in conditions if one.get("type") == kind), {})


def _sentence(words: str) -> str:
    words = " ".join(words.split()).rstrip(".")
    return f"{words[:1].upper()}{words[1:]}." if words else ""
