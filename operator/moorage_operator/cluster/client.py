"""HTTP to the API server: requests with plain mappings, and errors that say what the server said.

    ClusterError
    ├── NotLeadingError     not sent: another process may lead by now
    ├── UnreachableError    no answer: refused, cut, timed out, or none of an API server
    └── RejectedError       an answer >= 400
        ├── NotFoundError   404
        └── ConflictError   409: the object is another one, or has changed

Generated client models are not used: they cost memory and start-up time and drop fields that they do not know.
"""

import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import orjson

from moorage_operator.cluster.lines import lines
from moorage_operator.cluster.resources import Resource
from moorage_operator.manifest import Manifest

FIELD_MANAGER: Final = "moorage-operator"
REQUEST_TIMEOUT: Final = 30.0
CONNECTIONS: Final = 19
"""One for each worker, one for each of the two watches that are not kopf's, and one for whoever lists."""
WATCH_SECONDS: Final = 60
"""After which the API server ends a watch. It is dead when nothing comes for a little longer."""
_SHORT: Final = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT, sock_connect=10)
_ENDLESS: Final = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=WATCH_SECONDS + 10)
PAGE: Final = 200
"""Objects of a list at a time. For a moment they take far more memory than what is kept of them, and Python never
gives such memory back."""
_APPLY: Final = "application/apply-patch+yaml"
_HTTP_ERROR: Final = 400
_UNAUTHORIZED: Final = 401


class ClusterError(Exception):
    """Something asked of the API server did not happen."""


class NotLeadingError(ClusterError):
    """A write was not sent, since it is not certain that no other process leads."""


class UnreachableError(ClusterError):
    """No answer came, so it is not known whether the request was carried out."""


class RejectedError(ClusterError):
    """The API server said no.

    Attributes:
        status: the HTTP status.
        message: the server's own words.
    """

    def __init__(self, status: int, message: str, request: str) -> None:
        super().__init__(f"{request}: {status} {message}")
        self.status = status
        self.message = message


class NotFoundError(RejectedError):
    """404."""


class ConflictError(RejectedError):
    """409: a precondition (uid, resourceVersion) does not hold, or the object exists already."""


_REJECTIONS: Final[Mapping[int, type[RejectedError]]] = {404: NotFoundError, 409: ConflictError}


@dataclass(frozen=True)
class Connection:
    """Where the API server is and how to prove who we are."""

    server: str
    tls: ssl.SSLContext | None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class Client:
    """The API server, one request at a time; an async context manager.

    Args:
        connect: reads the credentials; called again when the server no longer accepts them, since tokens rotate.
        observe: told the method and the status (or `error`) of each request.
        may_write: asked before each write.
    """

    def __init__(
        self,
        connect: Callable[[], Connection],
        observe: Callable[[str, str], None],
        may_write: Callable[[], bool] = lambda: True,
    ) -> None:
        self._connect = connect
        self._observe = observe
        self._may_write = may_write
        self._connection = connect()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the connections."""
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONNECTIONS))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, **params: str) -> Manifest:
        """Read one object."""
        return await self._request("GET", path, params=params)

    async def list(
        self, resource: Resource, namespace: str | None, keep: Callable[[Manifest], Manifest] = dict
    ) -> tuple[list[Manifest], int]:
        """Every object of a kind that is ours, and the resourceVersion of the list.

        Thousands of whole objects would take memory that Python never gives back: of each page only what `keep` leaves
        of its objects outlives the next one.
        """
        params = {"labelSelector": resource.selector} if resource.selector else {}
        # Items of a built-in kind's list carry neither.
        identity = {"apiVersion": resource.api_version, "kind": resource.kind}
        found: list[Manifest] = []
        versions = set()
        async for items, version in self._pages(resource.path(namespace), params):
            found += [keep({**identity, **item}) for item in items]
            versions.add(version)
            del items
        return found, min(versions)

    async def pages(self, resource: Resource, **selection: str) -> AsyncIterator[Sequence[Manifest]]:
        """All objects of a kind, also those that are not ours, some at a time: together they may not fit the memory.

        Raises:
            RejectedError: it took so long that the server forgot where it was (410), or it will not have it.
        """
        async for items, _ in self._pages(resource.path(None), selection):
            yield items
            del items

    async def _pages(self, path: str, params: Mapping[str, str]) -> AsyncIterator[tuple[Sequence[Manifest], int]]:
        """The objects, some at a time, and the version of the whole, which is the same on each page."""
        following: str | None = ""
        while following is not None:
            further = {"continue": following} if following else {}
            answer = await self._request("GET", path, params={**params, "limit": str(PAGE), **further})
            try:
                items, about = answer["items"], answer["metadata"]
                version, following = int(about["resourceVersion"]), about.get("continue") or None
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                raise UnreachableError(f"GET {path}: the answer is no list") from error
            del answer
            yield items, version
            del items  # or it would be there beside the next page

    async def watch(self, resource: Resource, namespace: str | None, version: int) -> AsyncIterator[dict[str, Any]]:
        """What happens to the objects of a kind that are ours after `version`, until the server ends the watch.

        Raises:
            RejectedError: the server knows that version no more (410), or does not want to go on: list again.
        """
        selected = {"labelSelector": resource.selector} if resource.selector else {}
        since = {"watch": "1", "resourceVersion": str(version), "timeoutSeconds": str(WATCH_SECONDS)}
        path = resource.path(namespace)
        try:
            async with self._opened("GET", path, params={**selected, **since}, timeout=_ENDLESS) as response:
                self._observe("WATCH", str(response.status))
                if response.status >= _HTTP_ERROR:
                    raise RejectedError(response.status, _message(await response.read()), f"WATCH {path}")
                async for line in lines(response.content.iter_any()):
                    event = orjson.loads(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        raise RejectedError(status.get("code", 0), str(status.get("message")), f"WATCH {path}")
                    yield event
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise UnreachableError(f"WATCH {path}: {error or type(error).__name__}") from error

    async def create(self, path: str, body: Manifest) -> Manifest:
        """Make an object; the answer is what was stored."""
        return await self._request("POST", path, body=body, params={"fieldManager": FIELD_MANAGER})

    async def replace(self, path: str, body: Manifest) -> Manifest:
        """Write a whole object; with a resourceVersion in it, only if nobody else has written since."""
        return await self._request("PUT", path, body=body, params={"fieldManager": FIELD_MANAGER})

    async def apply(self, path: str, body: Manifest, *, force: bool = True) -> Manifest:
        """Server-side apply (KEP-555): our fields become as in `body`, others' stay, and ours that are not in it go.

        Raises:
            ConflictError: without `force`, where somebody else owns one of these fields and has another value there.
        """
        params = {"fieldManager": FIELD_MANAGER, "force": str(force).lower()}
        return await self._request("PATCH", path, body=body, params=params, content_type=_APPLY)

    async def delete(self, path: str, *, uid: str, resource_version: str, propagation: str = "Background") -> None:
        """Delete exactly the object that was seen; its dependents follow by garbage collection.

        Each of them once its owner is gone (`Background`), or all of them at once and the object last (`Foreground`).

        Raises:
            NotFoundError: it is gone already.
            ConflictError: it is another object, or it has changed since.
        """
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        body = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "preconditions": preconditions,
            "propagationPolicy": propagation,
        }
        await self._request("DELETE", path, body=body)

    async def _request(
        self,
        method: str,
        path: str,
        *,
        body: Manifest | None = None,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        data = None if body is None else orjson.dumps(body)
        status, answer = await self._exchange(method, path, data, params, content_type)
        if status == _UNAUTHORIZED:
            self._connection = self._connect()
            status, answer = await self._exchange(method, path, data, params, content_type)
        if status >= _HTTP_ERROR:
            raise _REJECTIONS.get(status, RejectedError)(status, _message(answer), f"{method} {path}")
        try:
            parsed: dict[str, Any] = orjson.loads(answer)
        except orjson.JSONDecodeError as error:  # a load balancer's page
            raise UnreachableError(f"{method} {path}: the answer is no JSON") from error
        return parsed

    async def _exchange(
        self, method: str, path: str, data: bytes | None, params: Mapping[str, str] | None, content_type: str
    ) -> tuple[int, bytes]:
        if method != "GET" and not self._may_write():
            raise NotLeadingError(f"{method} {path}: not sent, the lead is not certain")
        try:
            async with self._opened(method, path, data=data, params=params, content_type=content_type) as response:
                answer = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            self._observe(method, "error")
            raise UnreachableError(f"{method} {path}: {error or type(error).__name__}") from error
        self._observe(method, str(response.status))
        return response.status, answer

    def _opened(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None,
        data: bytes | None = None,
        content_type: str = "application/json",
        timeout: aiohttp.ClientTimeout = _SHORT,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        if self._session is None:
            raise UnreachableError("the client is not open")
        headers = {**self._connection.headers, "Content-Type": content_type, "Accept": "application/json"}
        url, tls = self._connection.server + path, self._connection.tls or True
        return self._session.request(method, url, data=data, params=params, headers=headers, ssl=tls, timeout=timeout)


def _message(answer: bytes) -> str:
    """The message of a `Status` object, or the beginning of whatever else (a proxy's page) answered."""
    try:
        parsed = orjson.loads(answer)
    except orjson.JSONDecodeError:
        parsed = None
    if isinstance(parsed, dict) and parsed.get("message"):
        return str(parsed["message"])
    return answer[:200].decode(errors="replace")
