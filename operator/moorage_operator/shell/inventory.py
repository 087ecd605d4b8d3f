"""Which nodes have free accelerators: listed when somebody waits for some, and once a minute at most."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from moorage_operator.cluster.client import Client, ClusterError
from moorage_operator.cluster.resources import ALL_PODS, NODES
from moorage_operator.manifest import Key
from moorage_operator.plan.nodes import PLACED, Amounts, Nodes, added, nodes, places, used

log = logging.getLogger(__name__)

INTERVAL: Final = 60.0
"""Seconds between two readings."""
ONE_NAMESPACE: Final = Nodes(unknown="nodes are not looked at, since this installation may see one namespace only")


class Inventory:
    """What nodes have, as it was when somebody last asked.

    Args:
        client: lists nodes and pods.
        again: told of each key that asked, once there is news for it.
        interval: seconds between two readings.
    """

    def __init__(self, client: Client, again: Callable[[Key], None], interval: float = INTERVAL) -> None:
        self._client, self._again, self._interval = client, again, interval
        self._known: Nodes | None = None
        self._askers: set[Key] = set()
        self._asked = asyncio.Event()

    def of(self, key: Key) -> Nodes | None:
        """What was read last; None when that was long ago. `key` hears of the next reading."""
        self._askers.add(key)
        self._asked.set()
        return self._known

    async def run(self) -> None:
        """Read when asked to, until cancelled."""
        while True:
            await self._asked.wait()
            self._known = await self._read()
            askers, self._askers = self._askers, set()  # also those that asked meanwhile
            self._asked.clear()
            for key in askers:
                self._again(key)
            await asyncio.sleep(self._interval)
            if not self._askers:
                self._known = None  # nobody waits any more, and the next one shall not hear of today's nodes tomorrow

    async def _read(self) -> Nodes:
        try:
            taken: dict[str, Amounts] = {}
            found: dict[str, str] = {}
            async for page in self._client.pages(ALL_PODS, fieldSelector=PLACED):
                for node, amounts in used(page).items():
                    taken[node] = added(taken.get(node, {}), amounts)
                found |= places(page)
            # Page by page: of thousands of nodes, each with the list of its images, little is kept.
            there = [node async for page in self._client.pages(NODES) for node in nodes(page, taken)]
        except ClusterError as error:
            log.warning("cannot tell which nodes have free accelerators: %s", error)
            return Nodes(
                unknown="which nodes have some free could not be read; the operator's log has more", again=True
            )
        return Nodes(tuple(there), places=found)
