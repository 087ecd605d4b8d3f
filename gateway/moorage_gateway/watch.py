"""One resource of the API server, kept up to date by list and watch.

On raw objects and not by the official client's watch, because every way in which a watch can fail has to end in a table
that is right again.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Protocol

import aiohttp
import orjson
from kubernetes.aio.config import ConfigException

from moorage_gateway.api_server import ApiServer

log = logging.getLogger(__name__)

Object = dict[str, Any]

_PAGE: Final = 500
"""Objects per page of a list, as the standard clients ask."""


@dataclass(frozen=True, slots=True)
class Resource:
    """What to list and watch: `/api/v1/pods` with a label selector, say; or one object, by its name as a field."""

    path: str
    label_selector: str = ""
    field_selector: str = ""

    @property
    def query(self) -> dict[str, str]:
        """The query that selects it."""
        selectors = {"labelSelector": self.label_selector, "fieldSelector": self.field_selector}
        return {name: selector for name, selector in selectors.items() if selector}


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. A watch that ends by itself and is opened again bounds how long a silent connection can go unnoticed.

    Attributes:
        watch: After this long the server ends a watch.
        grace: So much later the watch counts as stalled.
        resync: After this long everything is listed again, in case an event was lost on the way.
        backoff: The first pause after a failure; it doubles.
        backoff_most: The longest pause.
    """

    watch: float = 45
    grace: float = 10
    resync: float = 600
    backoff: float = 0.2
    backoff_most: float = 10


class Sink(Protocol):
    """Where the objects go."""

    def replace(self, objects: Sequence[Object]) -> None:
        """These are all that there are."""

    def put(self, obj: Object) -> None:
        """This one is new or has changed."""

    def remove(self, obj: Object) -> None:
        """This one is gone."""


class GoneError(Exception):
    """The server no longer knows the version to go on from: list again."""


class RefusedError(Exception):
    """The server answered with an error, or with something that is no watch; the message says what."""


_FAILURES: Final = (aiohttp.ClientError, TimeoutError, OSError, RefusedError, ConfigException)
"""What may happen to any request; ConfigException when a rotated token cannot be read just now."""


class Watcher:
    """Keeps a sink equal to one resource until cancelled, whatever the API server does meanwhile."""

    def __init__(self, api: ApiServer, resource: Resource, sink: Sink, timing: Timing | None = None) -> None:
        self._api, self._resource, self._sink = api, resource, sink
        self._timing = timing or Timing()
        self._version = ""
        self._pause = self._timing.backoff

    async def run(self) -> None:
        """List, watch, and start over as needed."""
        while True:
            try:
                await self._list()
                await self._follow()
            except GoneError as gone:
                await self._wait(gone)
            except _FAILURES as error:
                await self._wait(error)

    async def _list(self) -> None:
        objects: list[Object] = []
        query = {**self._resource.query, "limit": str(_PAGE)}
        while True:
            async with self._api.get(self._resource.path, query, aiohttp.ClientTimeout(total=30)) as answer:
                page = await _read(answer)
            objects += page["items"]
            query["continue"] = page["metadata"].get("continue") or ""
            if not query["continue"]:
                break
        self._sink.replace(objects)
        self._version = page["metadata"]["resourceVersion"]
        self._pause = self._timing.backoff
        log.info("%s: %d listed", self._resource.path, len(objects))

    async def _follow(self) -> None:
        """Watch until everything is to be listed again."""
        clock = asyncio.get_running_loop().time
        resync_at = clock() + self._timing.resync
        while (opened := clock()) < resync_at:
            try:
                await self._watch()
            except _FAILURES as error:
                await self._wait(error)
            else:
                if clock() - opened < 1:
                    await self._wait(RefusedError("the watch was closed at once"))

    async def _watch(self) -> None:
        """One watch, until the server ends it."""
        timing = self._timing
        query = {
            **self._resource.query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(max(1, round(timing.watch))),
        }
        timeout = aiohttp.ClientTimeout(total=timing.watch + timing.grace, sock_connect=5)
        async with self._api.get(self._resource.path, query, timeout) as answer:
            if answer.status != HTTPStatus.OK:
                await _read(answer)
            async for line in lines(answer.content):
                self._take(_parsed(line))
                self._pause = timing.backoff

    def _take(self, event: Object) -> None:
        kind, obj = event["type"], event["object"]
        if kind == "ERROR":
            raise _error(obj.get("code"), obj.get("message"))
        if kind in ("ADDED", "MODIFIED"):
            self._sink.put(obj)
        elif kind == "DELETED":
            self._sink.remove(obj)
        self._version = obj["metadata"]["resourceVersion"]

    async def _wait(self, error: Exception) -> None:
        log.warning("%s: %s; again in about %.1f s", self._resource.path, error or type(error).__name__, self._pause)
        await asyncio.sleep(self._pause * random.uniform(0.5, 1))  # noqa: S311 - spreads gateways, guards nothing
        self._pause = min(self._pause * 2, self._timing.backoff_most)


async def _read(answer: aiohttp.ClientResponse) -> Object:
    """The whole JSON answer, or the error that it stands for."""
    parsed = _parsed(await answer.read())
    if answer.status != HTTPStatus.OK:
        raise _error(answer.status, parsed.get("message"))
    return parsed


def _error(code: int | None, message: str | None) -> Exception:
    text = f"the API server answered {code}: {message}"
    return GoneError(text) if code == HTTPStatus.GONE else RefusedError(text)


def _parsed(line: bytes) -> Object:
    try:
        parsed = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise RefusedError(f"not JSON: {line[:80]!r}") from error
    if not isinstance(parsed, dict):
        raise RefusedError(f"not an object: {line[:80]!r}")
    return parsed


async def lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Whole lines of any length; aiohttp's own `readline` gives up on objects above its buffer.

    What is left when the server ends within a line is dropped: the next watch goes on from the last whole event.
    """
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
