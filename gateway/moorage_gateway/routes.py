"""Feeds the route table: objects as the API server reports them in, one frozen table out."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from moorage_api import names
from moorage_gateway import objects, table
from moorage_gateway.api_server import ApiServer
from moorage_gateway.objects import Deployment, Replica
from moorage_gateway.table import Key
from moorage_gateway.watch import Object, Resource, Timing, Watcher

log = logging.getLogger(__name__)

_T = TypeVar("_T")

# Lenient when read: what admission let through, but this gateway cannot read, is left out, and the log says so.
_UNREADABLE: Final = (AttributeError, KeyError, TypeError, ValueError)


def resources(namespace: str) -> tuple[Resource, Resource]:
    """What to watch for one namespace, or for all when it is empty: LLMDeployments and their pods."""
    within = f"/namespaces/{namespace}" if namespace else ""
    return (
        Resource(f"/apis/{names.API_VERSION}{within}/{names.PLURAL}"),
        Resource(f"/api/v1{within}/pods", f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY},{names.DEPLOYMENT_LABEL}"),
    )


class Routes:
    """The current table, and the objects that it is made of.

    Changes of one turn of the event loop are taken together; only the models that they touch are put together anew.

    Attributes:
        table: Swapped whole; read it once per request.
        synced: Whether both resources have been listed in full and are in the table; stays true from then on.
        changed: Set when the table is next swapped; there is a new one each time.
    """

    def __init__(self) -> None:
        self.table = table.EMPTY
        self.synced = False
        self.changed = asyncio.Event()
        self.deployments = _Deployments(self._touch)
        self.replicas = _Replicas(self._touch)
        self._models: dict[Key, table.Model] = {}
        self._touched: set[Key] = set()
        self._scheduled = False

    def watchers(self, api: ApiServer, namespace: str, timing: Timing | None = None) -> tuple[Watcher, Watcher]:
        """Those who keep this up to date; each has to be run."""
        deployments, pods = resources(namespace)
        return Watcher(api, deployments, self.deployments, timing), Watcher(api, pods, self.replicas, timing)

    def _touch(self, keys: Iterable[Key]) -> None:
        self._touched.update(keys)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._publish)

    def _publish(self) -> None:
        self._scheduled = False
        for key in self._touched:
            if (deployment := self.deployments.by_key.get(key)) is None:
                self._models.pop(key, None)
            else:
                self._models[key] = objects.model(deployment, self.replicas.of(key))
        self._touched.clear()
        self.table = table.build(self._models.values())
        self.synced = self.deployments.listed and self.replicas.listed
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class _Deployments:
    """Sink of LLMDeployments."""

    def __init__(self, touch: Callable[[Iterable[Key]], None]) -> None:
        self.by_key: dict[Key, Deployment] = {}
        self.listed = False
        self._touch = touch

    def replace(self, found: Sequence[Object]) -> None:
        before = set(self.by_key)
        readable = (self._remembering(each) for raw in found if (each := _read(objects.deployment, raw)) is not None)
        self.by_key = {each.key: each for each in readable}
        self.listed = True
        self._touch(before | set(self.by_key))

    def put(self, obj: Object) -> None:
        if (found := _read(objects.deployment, obj)) is None:
            self.remove(obj)
            return
        deployment = self._remembering(found)
        if self.by_key.get(deployment.key) != deployment:
            self.by_key[deployment.key] = deployment
            self._touch((deployment.key,))

    def remove(self, obj: Object) -> None:
        key = (obj["metadata"]["namespace"], obj["metadata"]["name"])
        if self.by_key.pop(key, None) is not None:
            self._touch((key,))

    def _remembering(self, now: Deployment) -> Deployment:
        """With the weights that were known, where all of them are gone: a lost status must not move any request."""
        before = self.by_key.get(now.key)
        if now.weights or before is None or before.created != now.created:
            return now
        return replace(now, weights=before.weights)


class _Replicas:
    """Sink of pods: those that take requests, by deployment."""

    def __init__(self, touch: Callable[[Iterable[Key]], None]) -> None:
        self.listed = False
        self._by_uid: dict[str, Replica] = {}
        self._by_key: dict[Key, dict[str, Replica]] = {}
        self._touch = touch

    def of(self, key: Key) -> Iterable[Replica]:
        return self._by_key.get(key, {}).values()

    def replace(self, found: Sequence[Object]) -> None:
        before = set(self._by_key)
        self._by_uid.clear()
        self._by_key.clear()
        for raw in found:
            self._add(raw["metadata"]["uid"], _read(objects.replica, raw))
        self.listed = True
        self._touch(before | set(self._by_key))

    def put(self, obj: Object) -> None:
        uid, now = obj["metadata"]["uid"], _read(objects.replica, obj)
        if (before := self._by_uid.get(uid)) != now:
            self._drop(uid)
            self._add(uid, now)
            self._touch({each.key for each in (before, now) if each is not None})

    def remove(self, obj: Object) -> None:
        if (gone := self._drop(obj["metadata"]["uid"])) is not None:
            self._touch((gone.key,))

    def _add(self, uid: str, replica: Replica | None) -> None:
        if replica is not None:
            self._by_uid[uid] = replica
            self._by_key.setdefault(replica.key, {})[uid] = replica

    def _drop(self, uid: str) -> Replica | None:
        replica = self._by_uid.pop(uid, None)
        if replica is not None:
            of_deployment = self._by_key[replica.key]
            del of_deployment[uid]
            if not of_deployment:
                del self._by_key[replica.key]
        return replica


def _read(reader: Callable[[Object], _T | None], raw: Object) -> _T | None:
    try:
        return reader(raw)
    except _UNREADABLE as error:
        log.warning("left out %s: %s: %s", raw.get("metadata", {}).get("name"), type(error).__name__, error)
        return None
