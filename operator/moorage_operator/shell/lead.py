"""What the leading operator does: hear, keep the store right, and work through the queue."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from moorage_api import names
from moorage_operator.cluster.client import Client, ClusterError, ConflictError
from moorage_operator.cluster.resources import LEASES, WATCHED
from moorage_operator.cluster.store import Store
from moorage_operator.cluster.writer import Writer
from moorage_operator.manifest import Key, Manifest, key_of, namespace_of
from moorage_operator.shell.attention import Attention
from moorage_operator.shell.ear import LISTED, Ear, EarError
from moorage_operator.shell.gateways import Gateways
from moorage_operator.shell.health import Pulse
from moorage_operator.shell.inventory import Inventory
from moorage_operator.shell.leader_worker_sets import LeaderWorkerSets
from moorage_operator.shell.metrics import Metrics
from moorage_operator.shell.queue import Backoff, WorkQueue
from moorage_operator.shell.reconcile import Reconciler
from moorage_operator.shell.refusals import Refusals
from moorage_operator.shell.registrar import Registrar
from moorage_operator.shell.settings import Settings
from moorage_operator.shell.supervisor import supervise

log = logging.getLogger(__name__)

LISTED_SECONDS: Final = 5.0
"""After a watch was begun anew, until everything is read again: all watches begin at about the same time. Of one that
finds nothing of its kind nobody hears: that the last of a kind went meanwhile is found by the regular reading."""
LAG_SECONDS: Final = 60.0
"""How long the first reading waits for an API server that lags behind."""


class LaggingError(ClusterError):
    """What was read is older than what is known to have happened."""


@dataclass(frozen=True)
class Leader:
    """The parts that work together while this process leads."""

    settings: Settings
    client: Client
    store: Store
    writer: Writer
    queue: WorkQueue[Key]
    reconciler: Reconciler
    metrics: Metrics
    pulse: Pulse
    chance: Callable[[], float]
    now: Callable[[], datetime]
    gateways: Gateways | None = None
    """None in an installation without."""
    since: Callable[[], int] = lambda: 0
    """The version that the cluster had when we took or last renewed the lead."""
    inventory: Inventory | None = None
    """None where nodes may not be listed."""
    leader_worker_sets: LeaderWorkerSets | None = None
    """None where nobody looks for that kind."""
    refusals: Refusals | None = None
    """None where nobody looks at why pods of groups are missing."""
    registrar: Registrar | None = None
    """None where nothing of the whole cluster may be written."""
    listed: asyncio.Event = field(default_factory=asyncio.Event)
    """A watch was begun anew since the last reading: it does not tell of what was deleted before."""

    def ear(self, login: Callable[[], Any]) -> Ear:
        """The watches that feed this leader."""
        return Ear(self.hear, login, self.settings.watch_namespace, self.settings.lease_name)

    async def lead(self, ear: Ear) -> None:
        """Lead until cancelled, or until a part breaks down."""
        self.pulse.beat()
        await self._read_first()
        async with asyncio.TaskGroup() as tasks:
            if self.gateways is not None:
                attention = Attention(self.store, self.queue, self.gateways.of, self.now)
                tasks.create_task(self.gateways.run(attention))
                await self.gateways.first_words()
            if self.inventory is not None:
                tasks.create_task(self.inventory.run())
            if self.leader_worker_sets is not None:
                tasks.create_task(self.leader_worker_sets.run(self.take))
            if self.refusals is not None:
                tasks.create_task(self.refusals.run())
            if self.registrar is not None:
                with contextlib.suppress(ClusterError):  # until it works nothing is decided about autoscalers
                    await self.registrar.look()
                tasks.create_task(self.registrar.run())
            self.pulse.ready = True
            tasks.create_task(self._hear_for_ever(ear))
            tasks.create_task(self._resync_for_ever())
            for _ in range(self.settings.workers):
                tasks.create_task(self.work())

    def hear(self, kind: str, manifest: Manifest) -> None:
        """An event of kopf's, from which we are known to hear."""
        self.pulse.beat()
        if kind == LISTED:
            self.listed.set()
        if manifest["kind"] != LEASES.kind:  # that is our own heartbeat
            self.take(kind, manifest)

    def take(self, kind: str, manifest: Manifest) -> None:
        """An event of an object: into the store, and its deployment into the queue when that is news."""
        namespace = namespace_of(manifest)
        unplaced = self.store.unplaced_count(namespace)
        if kind == "DELETED":
            self.store.remove(manifest)
            self.writer.forget(manifest)
            self.queue.add(key_of(manifest))
        elif self.store.heard(manifest):
            self.queue.add(key_of(manifest))
        if self.store.unplaced_count(namespace) != unplaced:
            for key in self.store.keepers(namespace):
                self.queue.add(key)

    async def resync(self, newest: int = 0) -> None:
        """Read everything, correct the store by it, and look at every deployment again.

        This is what finds deletions that a watch has missed, and the only reading there is apart from watches.

        Args:
            newest: the version that a list must have reached.

        Raises:
            ClusterError: something could not be read, or it is older than that.
        """
        for resource in WATCHED:
            listed, version = await self.client.list(resource, self.settings.watch_namespace, self.store.slim)
            if version < newest:
                raise LaggingError(f"the API server lags behind: {resource.plural} of {version}, not of {newest}")
            for gone in self.store.merge(resource.kind, listed, version):
                self.writer.forget(gone)
        if self.leader_worker_sets is not None:
            seen = await self.leader_worker_sets.look()
            if seen is not None and seen < newest:
                raise LaggingError(f"the API server lags behind: LeaderWorkerSets of {seen}, not of {newest}")
        for key in self.store.deployments():
            self.queue.add(key)

    async def work(self) -> None:
        """One worker: take a key, reconcile it, put it back when it is not done."""
        while True:
            key = await self.queue.get()
            began = time.perf_counter()
            self.metrics.active.inc()
            try:
                await self._reconcile(key)
            finally:
                self.metrics.active.dec()
                self.metrics.seconds.observe(time.perf_counter() - began)
                self.queue.done(key)

    async def _reconcile(self, key: Key) -> None:
        try:
            again = await self.reconciler.reconcile(key)
        except ConflictError as error:  # what was seen is old already: look again, which is how it is meant to be
            log.info("%s: %s", key, error)
            self.queue.retry(key)
            self.metrics.observe_result("requeue")
        except ClusterError as error:
            self._failed(key, str(error))
        except Exception as error:
            log.exception("%s: a defect", key)
            self._failed(key, repr(error))
        else:
            self.queue.forget(key)
            self.metrics.observe_result("success" if again is None else "requeue_after" if again else "requeue")
            if again is not None:
                self.queue.add_after(key, again)

    def _failed(self, key: Key, why: str) -> None:
        delay = self.queue.retry(key)
        self.metrics.errors.inc()
        self.metrics.observe_result("error")
        log.warning("%s: %s; again in %.1f s", key, why, delay)

    async def _read_first(self) -> None:
        """Nothing may be decided from a half-filled store: wait until everything has been read once.

        Nor from an old one, since the leader before may have written meanwhile: what is read has to be as new as our
        lead. Only where Leases are stored apart (`--etcd-servers-overrides`) do their versions say nothing of others'.
        """
        backoff = Backoff(shortest=0.5, longest=10.0)
        failures, patient_until = 0, time.monotonic() + LAG_SECONDS
        while True:
            try:
                await self.resync(self.since() if time.monotonic() < patient_until else 0)
            except ClusterError as error:
                failures += 1
                delay = backoff.delay(failures, self.chance())
                log.warning("cannot read the cluster: %s%s; again in %.1f s", error, _hint(error), delay)
                self.pulse.beat()  # waiting for the API server is not deafness
                await asyncio.sleep(delay)
            else:
                log.info("read %d objects", len(self.store))
                return

    async def _hear_for_ever(self, ear: Ear) -> None:
        await supervise(
            ear.listen,
            failures=EarError,
            clock=time.monotonic,
            sleep=asyncio.sleep,
            chance=self.chance,
            restarted=self._read_first,
        )

    async def _resync_for_ever(self) -> None:
        backoff = Backoff(shortest=LISTED_SECONDS, longest=self.settings.resync_seconds)
        failures = 0
        while True:
            if failures:
                await asyncio.sleep(backoff.delay(failures, self.chance()))
            else:
                await self._due()
            self.listed.clear()
            try:
                await self.resync()
            except ClusterError as error:
                failures += 1  # what it was to find is still to be found
                log.warning("resync: %s", error)
            else:
                failures = 0

    async def _due(self) -> None:
        """Wait until everything has to be read again."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.resync_seconds):
                await self.listed.wait()
                await asyncio.sleep(LISTED_SECONDS)


def _hint(error: ClusterError) -> str:
    missing = f"/{names.PLURAL}" in str(error) and getattr(error, "status", None) == 404  # noqa: PLR2004
    return " (is the resource definition installed? kubectl apply -f crds/)" if missing else ""
