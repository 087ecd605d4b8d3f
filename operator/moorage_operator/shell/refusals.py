"""Why pods of a group are not made, such as by a quota: the controller of StatefulSets says so in events only.

A Deployment has a condition for it. Events are read where pods are missing for longer than it takes to make them.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Final

from moorage_operator.cluster.client import Client, ClusterError
from moorage_operator.cluster.resources import EVENTS
from moorage_operator.cluster.store import Store
from moorage_operator.manifest import Key, Manifest, dig, is_deleting, uid_of
from moorage_operator.plan.groups import maker_of

log = logging.getLogger(__name__)

INTERVAL: Final = 5.0
"""Seconds in which a controller makes pods when nothing is wrong, and between two readings when something is."""
_LONGEST: Final = 12
"""So many times that, at most, while there is no news."""
_REASON: Final = "FailedCreate"


class Refusals:
    """What controllers say, as it was when somebody last asked.

    Events have no index, so each reading reads those of a whole namespace: it is one for all who ask there, and a rarer
    one the longer it brings no news.

    Args:
        client: lists events.
        store: what is known of the cluster.
        again: told of each key that asked, once there is news for it.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        client: Client,
        store: Store,
        again: Callable[[Key], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client, self._store, self._again, self._sleep = client, store, again, sleep
        self._told: dict[Key, Mapping[str, str]] = {}
        self._askers: set[Key] = set()
        self._asked = asyncio.Event()
        self._round = 0
        self._vain: dict[Key, tuple[int, int]] = {}  # how often in a row there was no news, and the next round to look

    def of(self, key: Key) -> Mapping[str, str]:
        """Words by the uid of the StatefulSet; nothing where no pod is missing. `key` hears of the next reading."""
        if not any(incomplete(self._store.children(key))):
            self._told.pop(key, None)
            self._vain.pop(key, None)
            return {}
        self._ask(key)
        return self._told.get(key, {})

    async def run(self) -> None:
        """Read while pods are missing, until cancelled."""
        while True:
            await self._asked.wait()
            await self._sleep(INTERVAL)
            self._round += 1
            due = {key.namespace for key in self._askers if self._vain.get(key, (0, 0))[1] <= self._round}
            for namespace in sorted(due):
                await self._read(namespace)

    def _ask(self, key: Key) -> None:
        self._askers.add(key)
        self._asked.set()

    async def _read(self, namespace: str) -> None:
        askers = sorted(key for key in self._askers if key.namespace == namespace)
        words = await self._words(namespace)
        self._askers.difference_update(askers)
        if not self._askers:
            self._asked.clear()
        for key in askers:
            self._tell(key, words)

    def _tell(self, key: Key, words: Mapping[str, str]) -> None:
        missing = [uid_of(one) for one in incomplete(self._store.children(key))]
        said = {uid: words[uid] for uid in missing if uid in words}
        if said and said != self._told.get(key, {}):
            self._told[key] = said
            self._vain.pop(key, None)
            self._again(key)
        elif missing:
            vain = self._vain.get(key, (0, 0))[0] + 1
            self._vain[key] = vain, self._round + min(2 ** min(vain, _LONGEST), _LONGEST)
            if not said:  # it may say so yet
                self._ask(key)

    async def _words(self, namespace: str) -> Mapping[str, str]:
        """What was last said of each workload."""
        about = f"involvedObject.kind=StatefulSet,reason={_REASON}"
        try:
            events = (await self._client.get(EVENTS.path(namespace), fieldSelector=about)).get("items") or ()
        except ClusterError as error:
            log.warning("%s: cannot tell why pods are missing: %s", namespace, error)
            return {}
        return {
            str(dig(one, "involvedObject", "uid")): str(one.get("message", "")) for one in sorted(events, key=_time)
        }


def incomplete(children: Mapping[str, Sequence[Manifest]]) -> Iterator[Manifest]:
    """The StatefulSets of which a pod is missing; one that has yet to end has the name of its successor."""
    for one in children.get("StatefulSet", ()):
        there = sum(1 for pod in children.get("Pod", ()) if maker_of(pod) == maker_of(one))
        if not is_deleting(one) and there < dig(one, "spec", "replicas", default=0):
            yield one


def _time(event: Manifest) -> str:
    """Of an event that came again, when it did last. Source: Event v1, which has three fields for it."""
    return str(
        event.get("lastTimestamp") or event.get("eventTime") or dig(event, "metadata", "creationTimestamp", default="")
    )
