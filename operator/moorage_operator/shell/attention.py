"""Which deployments are looked at again because of what a gateway said, and when.

Other weights or targets count at once. Figures count at once only where gates are judged by them; everywhere else they
end in the status, which is damped, so a deployment is looked at once its status would change.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Final

from moorage_api import names
from moorage_operator.cluster.store import Store
from moorage_operator.manifest import Key, Manifest, dig
from moorage_operator.plan.figures import Gateway
from moorage_operator.plan.routable import Routing
from moorage_operator.plan.telemetry import INTERVAL, measured
from moorage_operator.plan.times import from_text
from moorage_operator.shell.queue import WorkQueue
from moorage_operator.shell.views import News

_ONE: Final = 1


class Attention:
    """Puts keys into the queue.

    Args:
        store: what is known of the cluster.
        queue: the work.
        gateways: what the gateways know of a deployment.
        now: the time.
    """

    def __init__(
        self,
        store: Store,
        queue: WorkQueue[Key],
        gateways: Callable[[Key], tuple[Gateway, ...]],
        now: Callable[[], datetime],
    ) -> None:
        self._store, self._queue, self._gateways, self._now = store, queue, gateways, now
        self._asleep: dict[Key, datetime] = {}  # keys whose figures have changed enough, and when that may be written

    def told(self, news: News) -> None:
        """A gateway said something new."""
        for key in news.facts:
            self._asleep.pop(key, None)
            if self._deployment(key) is not None:
                self._queue.add(key)
        for key in news.figures:
            deployment = self._deployment(key)
            if deployment is not None:
                self._figures(key, deployment)

    def turned(self, *, alone: bool) -> None:
        """A gateway began or ceased to answer. One of several is nothing to what is at rest, unless that may sleep."""
        for key in self._store.deployments():
            deployment = self._deployment(key)
            if deployment is not None and (alone or moves(deployment) or may_sleep(deployment)):
                self._queue.add(key)

    def _figures(self, key: Key, deployment: Manifest) -> None:
        if is_gated(deployment):
            self._queue.add(key)
            return
        now = self._now()
        if key in self._asleep and now < self._asleep[key]:
            return
        self._asleep.pop(key, None)
        before = dig(deployment, "status", default={})
        written = from_text(before["measured"]) if before.get("measured") else None
        found = measured(Routing(self._gateways(key)), before, now)
        if found.wake is not None and written is not None:
            self._asleep[key] = written + INTERVAL
            self._queue.add_after(key, found.wake)
        elif found.at != written:
            self._queue.add(key)

    def _deployment(self, key: Key) -> Manifest | None:
        return self._store.get(names.KIND, key.namespace, key.name)


def is_gated(deployment: Manifest) -> bool:
    """Whether figures decide about its rollout."""
    return moves(deployment) and bool(dig(deployment, "spec", "rollout", "gates"))


def may_sleep(deployment: Manifest) -> bool:
    """Whether it goes to zero when no gateway has requests for it, so that each of them has to answer."""
    return bool(dig(deployment, "spec", "autoscaling", "minReplicas") == 0)


def moves(deployment: Manifest) -> bool:
    """Whether more than one revision of it takes part in something."""
    status = dig(deployment, "status", default={})
    return dig(status, "revision", "candidate") is not None or len(status.get("revisions", ())) > _ONE
