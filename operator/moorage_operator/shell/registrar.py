"""Keeps the registration of our metrics in step with the gateways and with those who want metrics.

What it depends on changes rarely, and most of it is in memory, so it is looked at every second; the API server is asked
only when something has changed, and every quarter of a minute for what others have registered meanwhile.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable
from typing import Final, TypeAlias

from moorage_api import names
from moorage_operator.cluster.client import Client, ClusterError, NotFoundError
from moorage_operator.cluster.compare import includes
from moorage_operator.cluster.resources import API_SERVICES, CLUSTER_ROLES
from moorage_operator.cluster.store import Store
from moorage_operator.manifest import Key, Manifest, dig, name_of, uid_of, version_of
from moorage_operator.plan.metrics_api import (
    NAME,
    OF_PODS,
    OF_THE_GROUP,
    SILENCE,
    MetricsApi,
    Registration,
    Seen,
    registration,
)
from moorage_operator.shell.gateways import Gateways

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
ASK_SECONDS: Final = 15.0
RETRY_SECONDS: Final = 5.0
INSTALLATION: Final = "moorage-operator"
"""The ClusterRole that the chart makes: what is registered goes with it."""
_Reasons: TypeAlias = tuple[bool, tuple[str, ...], bool, bool]


class Registrar:
    """Registers, takes back, and knows how it is.

    Args:
        client: the API server.
        store: which deployments there are.
        gateways: those of the installation; None: it has none.
        namespace: where they are.
        again: told of each deployment that the news is for.
        monotonic: seconds that never go back.
    """

    def __init__(
        self,
        client: Client,
        store: Store,
        gateways: Gateways | None,
        namespace: str,
        *,
        again: Callable[[Key], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._store, self._gateways, self._namespace = client, store, gateways, namespace
        self._again, self._monotonic = again, monotonic
        self._served = monotonic()  # when a ready gateway last served metrics
        self._asked: tuple[_Reasons, float] | None = None  # for what the API server was last asked, and when
        self._state: MetricsApi | None = None

    def state(self) -> MetricsApi | None:
        """How it is; None before it has been looked at."""
        return self._state

    async def run(self) -> None:
        """Look for ever, until cancelled."""
        while True:
            try:
                await self.look()
            except ClusterError as error:
                log.warning("the registration of metrics: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Look once, and write what has to be written.

        Raises:
            ClusterError: something could not be read or written; look again.
        """
        now, wanted = self._monotonic(), self._wanted()
        certificates = () if self._gateways is None else self._gateways.certificates
        if self._gateways is not None and self._gateways.serve:
            self._served = now
        silent = math.inf if self._gateways is None else now - self._served
        reasons = (bool(wanted), certificates, silent > 0, silent >= SILENCE)
        if self._asked is not None and not self._is_due(reasons, now, *self._asked):
            return
        self._asked = None  # until it has worked
        services = {name: found for name in (*OF_THE_GROUP, OF_PODS) if (found := await self._read(name)) is not None}
        decided = registration(
            Seen(
                services=services,
                namespace=self._namespace,
                wanted=bool(wanted),
                certificates=certificates,
                silent=silent,
                owner=await self._owner() if wanted else None,
            )
        )
        await self._write(decided, services.get(NAME))
        self._asked = (reasons, now)
        if decided.state != self._state:
            self._state = decided.state
            for key in wanted:
                self._again(key)

    @staticmethod
    def _is_due(reasons: _Reasons, now: float, last: _Reasons, when: float) -> bool:
        """Whether the API server is to be asked: something is new; or where anybody wants metrics, after a while."""
        return last != reasons or (reasons[0] and now - when >= ASK_SECONDS)

    def _wanted(self) -> tuple[Key, ...]:
        """Those with spec.autoscaling."""
        there = ((key, self._store.get(names.KIND, key.namespace, key.name)) for key in self._store.deployments())
        return tuple(key for key, one in there if dig(one, "spec", "autoscaling") is not None)

    async def _read(self, name: str) -> Manifest | None:
        try:
            return await self._client.get(API_SERVICES.path(None, name))
        except NotFoundError:
            return None

    async def _owner(self) -> Manifest | None:
        """A reference to the installation as it is now, since a tool may have made it anew; None without the chart."""
        try:
            role = await self._client.get(CLUSTER_ROLES.path(None, INSTALLATION))
        except NotFoundError:
            return None
        identity = {"apiVersion": CLUSTER_ROLES.api_version, "kind": CLUSTER_ROLES.kind}
        return {**identity, "name": name_of(role), "uid": uid_of(role)}

    async def _write(self, decided: Registration, live: Manifest | None) -> None:
        path = API_SERVICES.path(None, NAME)
        if decided.apply is not None and (live is None or not includes(live, decided.apply)):
            # Whatever somebody registers there between our look and our write stays theirs.
            seen = {} if live is None else {"uid": uid_of(live), "resourceVersion": str(version_of(live))}
            manifest = {**decided.apply, "metadata": {**decided.apply["metadata"], **seen}}
            await self._client.apply(path, manifest, force=live is not None)
            log.info("registered %s: %s", NAME, decided.reason)
        if decided.delete is not None:
            uid, version = uid_of(decided.delete), str(version_of(decided.delete))
            with contextlib.suppress(NotFoundError):
                await self._client.delete(path, uid=uid, resource_version=version)
            log.info("took %s back: %s", NAME, decided.reason)
