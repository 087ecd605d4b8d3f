"""The other gateways: each one's view, as it tells it to the operator, so that any of them answers for all.

Their pods are found by a watch, as the operator finds them: a headless Service would need DNS asked again and again,
knows a pod a while after it is ready, and does not say whether an address that is silent should answer.
"""

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import orjson

from moorage_api import names
from moorage_gateway import measure
from moorage_gateway.measure import Told
from moorage_gateway.signal import Signal
from moorage_gateway.table import Key
from moorage_gateway.watch import Object, Resource, lines

log = logging.getLogger(__name__)

_SILENCE_SECONDS: Final = 15.0
"""Without a line, though there is one every 5 s: what it said last is no longer believed."""
_LOST_SECONDS: Final = 2.0
"""After its connection ended: one that is still there is heard again by then, and of one that is not nobody has the
requests any more that it had."""
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=2, sock_read=_SILENCE_SECONDS)
_AGAIN_SECONDS: Final = 1.0
_UNREADABLE: Final = (AttributeError, KeyError, TypeError, ValueError)
_FAILURES: Final = (aiohttp.ClientError, TimeoutError, OSError, *_UNREADABLE)
_OVER: Final = frozenset({"Failed", "Succeeded"})


def resource(namespace: str) -> Resource:
    """What to watch: the gateways' pods."""
    return Resource(f"/api/v1/namespaces/{namespace}/pods", f"{names.NAME_LABEL}={names.GATEWAY}")


@dataclass(frozen=True, slots=True)
class Pod:
    """A gateway's pod.

    Attributes:
        uid: Which.
        name: For people.
        address: Where it tells.
        ready: Whether clients are sent to it.
    """

    uid: str
    name: str
    address: str
    ready: bool


def pod(raw: Object, port: int) -> Pod | None:
    """Read a pod; None while it has no address, and when it is over."""
    meta, status = raw["metadata"], raw.get("status") or {}
    address = status.get("podIP")
    if not address or status.get("phase") in _OVER:
        return None
    host = f"[{address}]" if ":" in address else address
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions") or ())
    return Pod(meta["uid"], meta["name"], f"{host}:{port}", ready and "deletionTimestamp" not in meta)


class Peers:
    """Sink of the gateways' pods, and what all but this one tell.

    Args:
        session: For connections to them.
        own: The name of this gateway's own pod.
        port: Where they tell.
    """

    def __init__(self, session: aiohttp.ClientSession, own: str, port: int = names.GATEWAY_INTERNAL_PORT) -> None:
        self._session, self._own, self._port = session, own, port
        self._pods: dict[str, Pod] = {}
        self._readers: dict[tuple[str, str], _Reader] = {}
        self._changes = Signal()
        self._listed = False

    def replace(self, found: Sequence[Object]) -> None:
        """These are all."""
        self._pods, self._listed = {}, True
        for raw in found:
            self._put(raw)
        self._changes.tell()

    def put(self, obj: Object) -> None:
        """This one is new or has changed."""
        self._put(obj)
        self._changes.tell()

    def remove(self, obj: Object) -> None:
        """This one is gone."""
        self._pods.pop(obj["metadata"]["uid"], None)
        self._changes.tell()

    async def run(self) -> None:
        """Listen to each of them while it is there, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                changed = self._changes.next
                wanted = {(each.uid, each.address): each for each in self._pods.values()}
                for gone in self._readers.keys() - wanted.keys():
                    self._readers.pop(gone).stop()
                for new in wanted.keys() - self._readers.keys():
                    reader = self._readers[new] = _Reader(self._session, wanted[new])
                    reader.task = group.create_task(reader.run())
                await changed.wait()

    def told(self, key: Key) -> list[Told]:
        """What those that answer tell of one model; one that does not know it tells nothing."""
        readers = [each for each in self._readers.values() if each.answers]
        return [told for each in readers if (told := each.models.get("/".join(key))) is not None]

    def silent(self, key: Key) -> list[Told | None]:
        """What those told last of one model that clients are sent to, and that do not answer; None: nothing."""
        if not self._listed:
            return [None]
        readers = [self._readers.get((each.uid, each.address)) for each in self._pods.values() if each.ready]
        name = "/".join(key)
        return [each.models.get(name) if each else None for each in readers if each is None or not each.answers]

    def _put(self, raw: Object) -> None:
        found = pod(raw, self._port)
        if found is None or found.name == self._own:
            self._pods.pop(raw["metadata"]["uid"], None)
        else:
            self._pods[found.uid] = found


class _Reader:
    """The view of one gateway, put together from the lines of its `/telemetry?watch`."""

    def __init__(self, session: aiohttp.ClientSession, gateway: Pod) -> None:
        self.models: dict[str, Told] = {}
        self.task: asyncio.Task[None] | None = None
        self._session, self._gateway = session, gateway
        self._believed_until = float("-inf")

    @property
    def answers(self) -> bool:
        """Whether what it said is still so."""
        return time.monotonic() < self._believed_until

    def stop(self) -> None:
        """Its pod is gone."""
        if self.task is not None:
            self.task.cancel()

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            try:
                await self._follow()
            except _FAILURES as error:
                log.info("gateway %s: %s", self._gateway.name, str(error) or type(error).__name__)
            self._believed_until = min(self._believed_until, time.monotonic() + _LOST_SECONDS)
            await asyncio.sleep(_AGAIN_SECONDS * random.uniform(0.5, 1))  # noqa: S311 - spreads gateways, guards nothing

    async def _follow(self) -> None:
        url = f"http://{self._gateway.address}{names.TELEMETRY_PATH}?watch"
        async with self._session.get(url, timeout=_TIMEOUT, raise_for_status=True, allow_redirects=False) as answer:
            async for line in lines(answer.content):
                self._take(orjson.loads(line))

    def _take(self, view: Any) -> None:
        now, at = time.monotonic(), view.get("time", "")
        models = {f"{each['namespace']}/{each['deployment']}": measure.read(each, at, now) for each in view["models"]}
        self.models = models if view["whole"] else self.models | models
        for name in view["removed"]:
            self.models.pop(name, None)
        self._believed_until = now + _SILENCE_SECONDS
