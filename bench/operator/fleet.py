"""Many LLMDeployments, as the people see them who make and change them."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any, Final, Self

import aiohttp
import orjson

from moorage_api import names
from moorage_operator.cluster.client import Connection
from moorage_operator.cluster.lines import lines
from moorage_operator.cluster.resources import DEPLOYMENTS
from moorage_operator.manifest import Key, Manifest, dig, key_of

_NAMESPACES: Final = 10
_AT_ONCE: Final = 16
"""Requests: as many people, or a GitOps tool with that many workers."""
_SPEC: Final = {
    # Pinned, so that nothing has to be looked up: there is no such model, and a simulated node fetches none.
    "model": {"source": f"hf://moorage/simulated@{'0' * 40}"},
    "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
}
_DAY: Final = 86_400
_SOON: Final = 60
_ENDLESS: Final = aiohttp.ClientTimeout(total=None)


@dataclass(frozen=True)
class Answered:
    """How long one object took, in seconds."""

    pod_s: float
    """Until it had a pod."""
    status_s: float
    """From when the pod was ready until the status said so."""


class Fleet:
    """The objects. An async context manager: inside it they are watched.

    Args:
        connection: who the people are.
        count: how many objects.
        replicas: of each.
    """

    def __init__(self, connection: Connection, count: int, replicas: int = 1) -> None:
        self._connection, self._replicas = connection, replicas
        self.keys = [Key(f"team-{number % _NAMESPACES}", f"model-{number:04}") for number in range(count)]
        self._seen: dict[Key, Manifest] = {}
        self._accepted: Callable[[Manifest], bool] = bool
        self._left: set[Key] = set()
        self._over = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Begin to watch."""
        self._session = aiohttp.ClientSession(
            self._connection.server,
            connector=aiohttp.TCPConnector(ssl=self._connection.tls or True, limit=_AT_ONCE + 2),
            headers=self._connection.headers,
        )
        await self._served()
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop watching."""
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        await self._session.close()

    async def settle_in(self) -> None:
        """Make the namespaces."""
        for namespace in sorted({key.namespace for key in self.keys}):
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
            await self._send("POST", "/api/v1/namespaces", body)

    async def deploy(self) -> None:
        """Make every object."""
        await self._each(lambda key: self._send("POST", DEPLOYMENTS.path(key.namespace), self._made(key)))

    async def one_more(self, number: int) -> Answered:
        """Make one object while nothing else goes on."""
        key = Key("team-0", f"one-{number:04}")
        params = {"watch": "1", "labelSelector": f"{names.DEPLOYMENT_LABEL}={key.name}"}
        pods = f"/api/v1/namespaces/{key.namespace}/pods"
        async with asyncio.timeout(_SOON), self._session.get(pods, params=params, timeout=_ENDLESS) as answer:
            began = time.monotonic()
            await self._send("POST", DEPLOYMENTS.path(key.namespace), self._made(key))
            pod_s = None
            async for event in _events(answer):
                pod_s = pod_s or time.monotonic() - began
                if condition(event["object"], "Ready"):
                    break
        ready = time.monotonic()
        await self.until(available, _SOON, {key})
        return Answered(pod_s or 0.0, time.monotonic() - ready)

    async def edit(self, number: int) -> None:
        """Change what the replicas of every object are made of."""
        patch = {"spec": {"engine": {"env": _env(number)}}}
        await self._each(lambda key: self._send("PATCH", DEPLOYMENTS.path(key.namespace, key.name), patch))

    async def until(
        self, accepted: Callable[[Manifest], bool], seconds: float, keys: Collection[Key] | None = None
    ) -> None:
        """Wait until every object, or those of `keys`, is accepted.

        Raises:
            TimeoutError: not in time.
        """
        self._accepted = accepted
        self._left = {key for key in keys or self.keys if not accepted(self._seen.get(key, {}))}
        self._over.clear()
        if not self._left:
            return
        over = asyncio.create_task(self._over.wait())
        await asyncio.wait({over, self._watching}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        if self._watching.done():
            self._watching.result()
        if self._left:
            key = min(self._left)
            raise TimeoutError(f"{len(self._left)} are not there, {key} among them: {self._seen.get(key)}")

    async def _served(self) -> None:
        """Wait until the API server serves the kind, a moment after it says that its definition is established."""
        async with asyncio.timeout(_SOON):
            while True:
                async with self._session.get(DEPLOYMENTS.path(None)) as answer:
                    if answer.ok:
                        return
                await asyncio.sleep(0.1)

    async def _each(self, work: Callable[[Key], Awaitable[None]]) -> None:
        """For every key, so many at once."""
        room = asyncio.Semaphore(_AT_ONCE)

        async def one(key: Key) -> None:
            async with room:
                await work(key)

        async with asyncio.TaskGroup() as tasks:
            for key in self.keys:
                tasks.create_task(one(key))

    async def _send(self, method: str, path: str, body: Manifest) -> None:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        async with self._session.request(
            method, path, data=orjson.dumps(body), headers={"Content-Type": kind}
        ) as answer:
            if not answer.ok:
                raise RuntimeError(f"{method} {path}: {answer.status} {await answer.text()}")

    async def _watch(self) -> None:
        """Each watch begins with all that there is: so nothing is lost when the server ends one.

        It does so when it takes in the definition of the kind anew, which on a busy machine may be late.
        """
        params = {"watch": "1", "timeoutSeconds": str(_DAY)}
        while True:
            async with self._session.get(DEPLOYMENTS.path(None), params=params, timeout=_ENDLESS) as answer:
                if not answer.ok:
                    await asyncio.sleep(0.5)
                    continue
                async for event in _events(answer):
                    if event["type"] == "ERROR":
                        raise RuntimeError(f"the watch: {event['object']}")
                    self._take(event["object"])

    def _made(self, key: Key) -> Manifest:
        metadata = {"name": key.name, "namespace": key.namespace}
        spec = {**_SPEC, "replicas": self._replicas}
        return {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": metadata, "spec": spec}

    def _take(self, one: Manifest) -> None:
        key = key_of(one)
        self._seen[key] = one
        if key in self._left and self._accepted(one):
            self._left.discard(key)
            if not self._left:
                self._over.set()


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[Any]:
    async for line in lines(answer.content.iter_any()):
        yield orjson.loads(line)


def available(one: Manifest) -> bool:
    """It answers requests."""
    return condition(one, "Available")


def replaced(number: int) -> Callable[[Manifest], bool]:
    """What edit `number` asks for is what serves, and nothing else is left of it."""

    def accepted(one: Manifest) -> bool:
        asked = dig(one, "spec", "engine", "env") == _env(number)
        current = dig(one, "status", "observedGeneration") == dig(one, "metadata", "generation")
        alone = len(dig(one, "status", "revisions", default=())) == 1
        return asked and current and alone and condition(one, "Ready")

    return accepted


def _env(number: int) -> list[Manifest]:
    return [{"name": "EDIT", "value": str(number)}]


def condition(one: Manifest, kind: str) -> bool:
    """Whether a condition of an object's status is true."""
    conditions = dig(one, "status", "conditions", default=())
    return any(condition["type"] == kind and condition["status"] == "True" for condition in conditions)
