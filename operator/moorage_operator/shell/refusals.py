"""Why pods of a group are not made, such as by a quota: the controller of StatefulSets says so in events only.

A Deployment has a condition for it. Events are read where pods are missing for longer than it takes to make them.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from moorage_operator.cluster.client import Client, ClusterError
from moorage_operator.cluster.resources import EVENTS
from moorage_operator.cluster.store import Store
from moorage_operator.manifest import Key, Manifest, dig, is_deleting, revision_of, uid_of
from moorage_operator.plan.groups import group_of

log = logging.getLogger(__name__)

INTERVAL: Final = 5.0
"""Seconds in which a controller makes pods when nothing is wrong, and between two readings when something is."""
_REASON: Final = "FailedCreate"


class Refusals:
    """What controllers say, as it was when somebody last asked.

    Args:
        client: lists events.
        store: what is known of the cluster.
        again: told of each key that asked, once there is news for it.
        interval: seconds between two readings.
    """

    def __init__(self, client: Client, store: Store, again: Callable[[Key], None], interval: float = INTERVAL) -> None:
        self._client, self._store, self._again, self._interval = client, store, again, interval
        self._told: dict[Key, Mapping[str, str]] = {}
        self._askers: set[Key] = set()
        self._asked = asyncio.Event()

    def of(self, key: Key) -> Mapping[str, str]:
        """Words by the uid of the StatefulSet; nothing where no pod is missing. `key` hears of the next reading."""
        if not any(incomplete(self._store.children(key))):
            self._told.pop(key, None)
            return {}
        self._askers.add(key)
        self._asked.set()
        return self._told.get(key, {})

    async def run(self) -> None:
        """Read while pods are missing, until cancelled."""
        while True:
            await self._asked.wait()
            await asyncio.sleep(self._interval)
            askers, self._askers = self._askers, set()
            self._asked.clear()
            for key in sorted(askers):
                await self._read(key)

    async def _read(self, key: Key) -> None:
        missing = tuple(incomplete(self._store.children(key)))
        if not missing:
            return
        try:
            said = {uid_of(one): words for one in missing if (words := await self._words(key, one))}
        except ClusterError as error:
            log.warning("%s: cannot tell why pods are missing: %s", key, error)
            said = {}
        if not said:  # it may say so yet
            self._askers.add(key)
            self._asked.set()
        elif said != self._told.get(key, {}):
            self._told[key] = said
            self._again(key)

    async def _words(self, key: Key, workload: Manifest) -> str:
        """What was last said of a workload."""
        about = f"involvedObject.uid={uid_of(workload)},reason={_REASON}"
        events = (await self._client.get(EVENTS.path(key.namespace), fieldSelector=about)).get("items") or ()
        newest = max(events, key=_time, default=None)
        return str(newest.get("message", "")) if newest is not None else ""


def incomplete(children: Mapping[str, Sequence[Manifest]]) -> Iterator[Manifest]:
    """The StatefulSets of which a pod is missing; one that has yet to end has the name of its successor."""
    for one in children.get("StatefulSet", ()):
        there = sum(1 for pod in children.get("Pod", ()) if _whose(pod) == _whose(one))
        if not is_deleting(one) and there < dig(one, "spec", "replicas", default=0):
            yield one


def _whose(manifest: Manifest) -> tuple[int, int | None]:
    return revision_of(manifest), group_of(manifest)


def _time(event: Manifest) -> str:
    """Of an event that came again, when it did last. Source: Event v1, which has three fields for it."""
    return str(
        event.get("lastTimestamp") or event.get("eventTime") or dig(event, "metadata", "creationTimestamp", default="")
    )
