"""LeaderWorkerSets, in clusters that have them: the one kind of ours that may come and go while we look.

Kopf, which hears everything else, ends where a kind that it watches is gone, and does not notice one that came.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from moorage_operator.cluster.client import Client, ClusterError, NotFoundError
from moorage_operator.cluster.resources import LEADER_WORKER_SETS
from moorage_operator.cluster.slim import slim
from moorage_operator.cluster.store import Store
from moorage_operator.manifest import LEADER_WORKER_SET, STATEFUL_SET, Key, Manifest, key_of

log = logging.getLogger(__name__)

INTERVAL: Final = 30.0
"""Seconds between two looks whether the cluster has them by now."""
_BETWEEN: Final = 1.0
"""Seconds between the end of a watch and the next list, so that a server that ends watches at once is not flooded."""


class LeaderWorkerSets:
    """Keeps the store right about them, and says whether new groups can be such.

    Args:
        client: lists and watches them.
        store: what is known of the cluster.
        namespace: the only one to look at; None: all.
        again: told of each key for which something has changed without a word of a watch.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        client: Client,
        store: Store,
        namespace: str | None,
        again: Callable[[Key], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client, self._store, self._namespace = client, store, namespace
        self._again, self._sleep = again, sleep
        self._served: bool | None = None

    def kind(self) -> str:
        """What a new group is made as."""
        return LEADER_WORKER_SET if self._served else STATEFUL_SET

    async def look(self) -> int | None:
        """Read all of them. Returns the version of the list; None where the cluster has no such kind.

        Raises:
            ClusterError: they could not be read.
        """
        try:
            listed, version = await self._client.list(LEADER_WORKER_SETS, self._namespace, self._store.slim)
        except NotFoundError as error:
            self._turn(served=False, why=str(error))
            for one in self._store.clear(LEADER_WORKER_SET):
                self._again(key_of(one))
            return None
        self._turn(served=True, why="the cluster has them")
        for one in self._store.merge(LEADER_WORKER_SET, listed, version):
            self._again(key_of(one))
        return version

    async def run(self, hear: Callable[[str, Manifest], None]) -> None:
        """Look, and tell `hear` of each event with its type, until cancelled."""
        while True:
            try:
                version = await self.look()
                if version is not None:
                    async for event in self._client.watch(LEADER_WORKER_SETS, self._namespace, version):
                        hear(event["type"], slim(event["object"]))
            except ClusterError as error:
                log.warning("cannot follow LeaderWorkerSets: %s", error)
            await self._sleep(_BETWEEN if self._served else INTERVAL)

    def _turn(self, *, served: bool, why: str) -> None:
        if served == self._served:
            return
        if served or self._served:
            log.info("new groups of pods are made as %s: %s", LEADER_WORKER_SET if served else STATEFUL_SET, why)
        first, self._served = self._served is None, served
        for key in () if first else self._store.deployments():  # one that was refused may wait for minutes
            self._again(key)
