"""How far the next replica's start has come, and when it should be ready: as long as the last start took."""

import itertools
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from moorage_api import names
from moorage_api.conditions import PODS_ON_THE_WAY
from moorage_api.status import Startup
from moorage_operator.manifest import Manifest, dig, uid_of
from moorage_operator.plan.pods import Replica, condition_of, container_of, furthest
from moorage_operator.plan.remembered import remembered
from moorage_operator.plan.times import from_text


def startup(pods: Iterable[Manifest], replicas: Iterable[Replica], before: Any) -> Startup | None:
    """What to report.

    Args:
        pods: all of the deployment.
        replicas: those of the wanted revision.
        before: `status.startup` as it was last written, which remembers the last start.
    """
    ready = {one.uid: one.ready for one in replicas}
    there = [pod for pod in pods if uid_of(pod) in ready]
    seconds = _last(pod for pod in there if ready[uid_of(pod)])
    last = remembered(Startup, before)
    seconds = seconds or (dict(last.seconds or {}) if last is not None else {})
    starting = [pod for pod in there if not ready[uid_of(pod)] and "creationTimestamp" in pod["metadata"]]
    if not starting:
        return Startup(seconds=seconds) if seconds else None
    phase = furthest(replicas)
    return Startup(phase=phase, estimated_ready=_estimate(starting, seconds), seconds=seconds or None)


def _estimate(starting: list[Manifest], seconds: dict[str, int]) -> datetime | None:
    if not seconds:
        return None
    begun = min(from_text(pod["metadata"]["creationTimestamp"]) for pod in starting)
    return begun + timedelta(seconds=sum(seconds.values()))


def _last(pods: Iterable[Manifest]) -> dict[str, int]:
    """How long the phases of the newest complete start took; nothing when none can be told."""
    measured = [(pod["metadata"].get("creationTimestamp", ""), phases) for pod in pods if (phases := _phases(pod))]
    return max(measured, key=lambda one: one[0])[1] if measured else {}


def _phases(pod: Manifest) -> dict[str, int]:
    """Seconds by phase of a replica that came up at its first try, from the times in its status."""
    fetch, server = container_of(pod, names.FETCH_CONTAINER), container_of(pod, names.SERVER_CONTAINER)
    if fetch.get("restartCount") or server.get("restartCount"):
        return {}
    moments = (
        dig(pod, "metadata", "creationTimestamp"),
        condition_of(pod, "PodScheduled").get("lastTransitionTime"),
        dig(fetch, "state", "terminated", "finishedAt"),
        condition_of(pod, "Ready").get("lastTransitionTime"),
    )
    if None in moments:
        return {}
    times = [from_text(str(moment)) for moment in moments]
    spans = [max(0, round((later - earlier).total_seconds())) for earlier, later in itertools.pairwise(times)]
    return dict(zip((phase.value for phase in PODS_ON_THE_WAY[:3]), spans, strict=True))
