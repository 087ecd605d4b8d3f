"""The autoscaler that a deployment shall have, and what has to be written for that."""

from dataclasses import dataclass
from datetime import datetime

from moorage_api.autoscaling import Autoscaling
from moorage_operator.manifest import Manifest, is_deleting
from moorage_operator.plan.metrics_api import MetricsApi
from moorage_operator.plan.situation import Situation
from moorage_operator.plan.snapshot import AUTOSCALER, Apply, Delete, Snapshot
from moorage_operator.render.autoscaler import autoscaler


@dataclass(frozen=True)
class Scaled:
    """What is known of the autoscaling of one deployment."""

    deployment: Manifest
    autoscaling: Autoscaling
    autoscaler: Manifest | None
    """The live HorizontalPodAutoscaler."""
    metrics: MetricsApi | None
    """None: nobody has looked yet."""
    wanted: int
    up_since: datetime | None
    """Since when a replica answers; None while none does."""
    cut: str = ""
    """Why fewer are wanted than spec.replicas says; empty where that is not so."""
    foreign: Manifest | None = None
    """Somebody else's autoscaler that has the name."""
    refused: str = ""
    """Why the API server does not take ours, in its own words; empty where it does."""


@dataclass(frozen=True)
class Writes:
    """Of the autoscaler."""

    applies: tuple[Apply, ...] = ()
    deletes: tuple[Delete, ...] = ()
    in_the_way: tuple[Manifest, ...] = ()
    """Somebody else's, that has the name."""


def scaled(snapshot: Snapshot, found: Situation) -> Scaled | None:
    """Read a snapshot; None without spec.autoscaling, and while spec cannot be used."""
    if found.autoscaling is None:
        return None
    return Scaled(
        deployment=snapshot.deployment,
        autoscaling=found.autoscaling,
        autoscaler=snapshot.autoscaler,
        metrics=snapshot.metrics,
        wanted=found.wanted,
        up_since=min((one.ready_since or found.now for one in found.replicas if one.ready), default=None),
        cut=found.cut,
        foreign=snapshot.foreign_autoscaler,
        refused=snapshot.autoscaler_refused,
    )


def writes(snapshot: Snapshot, found: Situation) -> Writes:
    """One autoscaler where there is something for it to go by, else none; what is there stays while nobody knows."""
    wish = scaled(snapshot, found)
    if found.invalid is not None or (wish is not None and wish.metrics is None):
        return Writes()
    manifest = _manifest(wish, found)
    if manifest is not None and wish is not None:
        if wish.foreign is not None:
            return Writes(in_the_way=(wish.foreign,))
        most = wish.autoscaling.max_replicas
        return Writes(applies=(Apply(manifest, f"spec.replicas follows the load, up to {most}"),))
    why = "spec.autoscaling is not there any more" if wish is None else "it could measure nothing"
    there = (one for one in snapshot.owned(AUTOSCALER) if not is_deleting(one))
    return Writes(deletes=tuple(Delete(one, why) for one in there))


def _manifest(wish: Scaled | None, found: Situation) -> Manifest | None:
    if wish is None or wish.metrics is None or not wish.metrics.cluster:
        return None
    foreign = bool(wish.metrics.owner)
    if foreign and not wish.metrics.cpu:
        return None
    return autoscaler(found.owner, wish.autoscaling, by_cpu_alone=foreign)
