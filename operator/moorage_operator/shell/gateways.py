"""The gateways: each one is listened to for as long as its pod is there. A follower has no connections."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final, Protocol

import aiohttp

from moorage_api import names
from moorage_operator.cluster.client import Client, ClusterError
from moorage_operator.cluster.follow import follow
from moorage_operator.cluster.resources import GATEWAYS
from moorage_operator.manifest import Key, Manifest, dig, has_ended, is_deleting, name_of, uid_of
from moorage_operator.plan.figures import Gateway
from moorage_operator.shell.link import Link, Pace
from moorage_operator.shell.supervisor import supervise
from moorage_operator.shell.views import News

FIRST_WORDS: Final = 3.0
"""Seconds that the first decision waits for the ready gateways, so that a restart of the operator changes nothing."""
_Address = tuple[str, str]  # a pod's uid, and where it tells


class Listener(Protocol):
    """Who wants to know what gateways say."""

    def told(self, news: News) -> None:
        """A gateway said something new."""

    def turned(self, *, alone: bool) -> None:
        """A gateway began or ceased to answer; `alone` when no other one answers."""


class Gateways:
    """All gateways of the installation.

    Args:
        client: tells which pods there are.
        namespace: where they are.
        chance: a number in [0, 1) for the jitter of retries.
        pace: how patient to be with each.
        now: the time.
    """

    def __init__(
        self,
        client: Client,
        namespace: str,
        chance: Callable[[], float],
        pace: Pace | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client, self._namespace, self._chance = client, namespace, chance
        self._pace, self._now = pace or Pace(), now
        self._links: dict[_Address, Link] = {}
        self._tasks: dict[_Address, asyncio.Task[None]] = {}
        self._listed = asyncio.Event()
        self._listener: Listener | None = None

    def of(self, key: Key) -> tuple[Gateway, ...]:
        """What each of them knows of a deployment, by name. One on its way out counts for as long as it answers."""
        there = (link for link in self._links.values() if link.answering or not link.leaving)
        return tuple(link.of(key) for link in sorted(there, key=lambda one: one.name))

    @property
    def certificates(self) -> tuple[str, ...]:
        """By which they prove themselves when they serve metrics. One that is silent to us may be heard by others."""
        return tuple(sorted({link.certificate for link in self._links.values() if link.certificate}))

    @property
    def serve(self) -> bool:
        """Whether any of them is ready, answers, and serves metrics, which it tells its certificate for."""
        return any(link.ready and link.answering and link.certificate for link in self._links.values())

    async def run(self, listener: Listener) -> None:
        """Listen to all of them, and tell `listener` what is new, until cancelled."""
        self._listener = listener
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:

            async def follow_pods() -> None:
                async for pods in follow(self._client, GATEWAYS, self._namespace):
                    self._replace(pods.values(), lambda link: tasks.create_task(link.listen(session, self._chance)))
                    self._listed.set()

            await supervise(
                follow_pods,
                failures=ClusterError,
                clock=time.monotonic,
                sleep=asyncio.sleep,
                chance=self._chance,
                restarted=_nothing,
            )

    async def first_words(self, seconds: float = FIRST_WORDS) -> None:
        """Wait until each ready gateway has said something, but not for longer than that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._listed.wait()
                for link in [one for one in self._links.values() if one.ready]:
                    await link.spoke.wait()

    def _replace(self, pods: Iterable[Manifest], start: Callable[[Link], "asyncio.Task[None]"]) -> None:
        """Connect to those that are new, and let go of those that are gone."""
        found = {(uid_of(pod), url): pod for pod in pods if (url := _url(pod)) is not None}
        gone = [self._links.pop(address) for address in set(self._links) - set(found)]
        for address in set(self._tasks) - set(found):
            self._tasks.pop(address).cancel()
        for address, pod in found.items():
            if address not in self._links:
                who = name_of(pod), address[1]
                self._links[address] = Link(*who, self._told, self._turned, self._pace, now=self._now)
                self._tasks[address] = start(self._links[address])
            self._links[address].leaving = is_deleting(pod)
            self._links[address].ready = _is_ready(pod)
        for link in gone:
            if link.answering:
                self._turned(link)

    def _told(self, news: News) -> None:
        if self._listener is not None:
            self._listener.told(news)

    def _turned(self, link: Link) -> None:
        others = any(one.answering for one in self._links.values() if one is not link)
        if self._listener is not None:
            self._listener.turned(alone=not others)


def _url(pod: Manifest) -> str | None:
    """Where a gateway tells; None before it has an address, and when it has ended."""
    address = str(dig(pod, "status", "podIP", default=""))
    if not address or has_ended(pod):
        return None
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{names.GATEWAY_INTERNAL_PORT}{names.TELEMETRY_PATH}?watch"


def _is_ready(pod: Manifest) -> bool:
    conditions: Iterable[Mapping[str, str]] = dig(pod, "status", "conditions", default=())
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


async def _nothing() -> None:
    """Nothing has to be done before the pods are listed anew."""
