"""Why pods of a group are not made, such as by a quota: the controller of StatefulSets says so in events only.

Those of a LeaderWorkerSet are made by two StatefulSets of its controller's: one of its name, and its name with `-0`.

A Deployment has a condition for it. Events are read where pods are missing for longer than it takes to make them.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Final

from moorage_operator.cluster.client import Client, ClusterError
from moorage_operator.cluster.resources import EVENTS
from moorage_operator.cluster.store import Store
from moorage_operator.manifest import (
    GROUP_KINDS,
    STATEFUL_SET,
    Key,
    Manifest,
    dig,
    is_deleting,
    kind_of,
    name_of,
    uid_of,
)
from moorage_operator.plan.groups import maker_of
from moorage_operator.render.workload import pods_made

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
        """Words by the uid of the workload; nothing where no pod is missing. `key` hears of the next reading."""
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
        events = await self._events(namespace)
        self._askers.difference_update(askers)
        if not self._askers:
            self._asked.clear()
        for key in askers:
            self._tell(key, events)

    def _tell(self, key: Key, events: Sequence[Manifest]) -> None:
        missing = tuple(incomplete(self._store.children(key)))
        said = {uid_of(one): words for one in missing if (words := _said_of(one, events))}
        if said and said != self._told.get(key, {}):
            self._told[key] = said
            self._vain.pop(key, None)
            self._again(key)
        elif missing:
            vain = self._vain.get(key, (0, 0))[0] + 1
            self._vain[key] = vain, self._round + min(2 ** min(vain, _LONGEST), _LONGEST)
            if not said:  # it may say so yet
                self._ask(key)

    async def _events(self, namespace: str) -> Sequence[Manifest]:
        """What was said of any StatefulSet, the latest last."""
        about = f"involvedObject.kind=StatefulSet,reason={_REASON}"
        try:
            events = (await self._client.get(EVENTS.path(namespace), fieldSelector=about)).get("items") or ()
        except ClusterError as error:
            log.warning("%s: cannot tell why pods are missing: %s", namespace, error)
            return ()
        return sorted(events, key=_time)


def incomplete(children: Mapping[str, Sequence[Manifest]]) -> Iterator[Manifest]:
    """The groups of which a pod is missing; one that has yet to end has the name of its successor."""
    for one in (one for kind in GROUP_KINDS for one in children.get(kind, ())):
        there = sum(1 for pod in children.get("Pod", ()) if maker_of(pod) == maker_of(one))
        if not is_deleting(one) and there < pods_made(one):
            yield one


def _said_of(workload: Manifest, events: Sequence[Manifest]) -> str:
    """What was last said of it, or of the StatefulSets that it consists of."""
    about = (str(one.get("message", "")) for one in reversed(events) if _concerns(one, workload))
    return next(about, "")


def _concerns(event: Manifest, workload: Manifest) -> bool:
    if kind_of(workload) == STATEFUL_SET:
        return str(dig(event, "involvedObject", "uid")) == uid_of(workload)
    # Whose uid we do not know: what was said of an earlier one of that name was said before this one came.
    name, born = name_of(workload), str(dig(workload, "metadata", "creationTimestamp", default=""))
    return dig(event, "involvedObject", "name") in {name, f"{name}-0"} and _time(event) >= born


def _time(event: Manifest) -> str:
    """Of an event that came again, when it did last. Source: Event v1, which has three fields for it."""
    return str(
        event.get("lastTimestamp") or event.get("eventTime") or dig(event, "metadata", "creationTimestamp", default="")
    )
