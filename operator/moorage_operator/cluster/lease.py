"""Leader election by a `coordination.k8s.io` Lease, in the wire format of client-go, so that every tool reads it.

Our own, because the client library's (`kubernetes.aio.leaderelection`) measures with the wall clock, never lets go of
the lease, has no time limit on its requests, and does not look at the task that it started. The rules are
client-go's: a lease is free when its holder is empty or when it has not changed for its duration *as this process has
seen it* (so clocks of different nodes do not matter), and a leader that cannot renew within the deadline must stop
before anyone else may start.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from moorage_operator.cluster.client import Client, ClusterError, ConflictError, NotFoundError
from moorage_operator.cluster.resources import LEASES
from moorage_operator.manifest import Manifest, dig, version_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LeaseTimes:
    """Seconds: others wait `duration`, the leader gives up after `deadline`, both look every `retry`."""

    duration: float = 15
    deadline: float = 10
    retry: float = 2


class LeaseLostError(Exception):
    """The lease could not be renewed in time, or somebody else holds it."""


class Lease:
    """One Lease object and our place in it.

    Args:
        client: the API server.
        namespace, name: which Lease.
        identity: who we are; must differ between processes.
        monotonic: seconds that never go back, and go on while the machine is suspended; decides whose time is up.
        times: duration, deadline and retry period.
        owner: an owner reference, so that a lease that we make is removed with that object; None: it stays.
    """

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        identity: str,
        *,
        monotonic: Callable[[], float],
        times: LeaseTimes | None = None,
        owner: Manifest | None = None,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._monotonic = monotonic
        self._times = times or LeaseTimes()
        self._owner = owner
        self._seen: tuple[str, float] = ("", monotonic())  # the version last seen, and since when
        self._renewed: float | None = None
        self._ours: Manifest | None = None  # as the API server stored our last claim
        self.version = 0
        """The resourceVersion of our last claim."""

    def held(self) -> bool:
        """Whether nobody else can have the lease yet.

        To be asked before each write: a process that stood still (a suspended machine, a starved one) goes on where it
        was, and would write before it hears that it lost the lease meanwhile.
        """
        return self._renewed is not None and self._monotonic() - self._renewed < self._times.deadline

    async def acquire(self) -> None:
        """Wait until the lease is ours."""
        while not await self._attempt():  # noqa: ASYNC110 - another process lets go, and tells nobody
            await asyncio.sleep(self._times.retry)
        log.info("leading as %s", self._identity)

    async def keep(self) -> None:
        """Renew for as long as it works.

        Raises:
            LeaseLostError: it did not within the deadline. Whatever the leader does must stop now.
        """
        while True:
            await asyncio.sleep(self._times.retry)
            before = self.version
            if not await self._attempt() and not self.held():
                raise LeaseLostError(f"{self._identity} could not renew {self._namespace}/{self._name}")
            if self.version < before:  # what is known from before would pass for newer than what is so
                raise LeaseLostError("the cluster was restored from a backup: everything has to be read anew")

    async def release(self) -> None:
        """Give the lease back, so that the next one need not wait until it runs out."""
        lease = await self._client.get(LEASES.path(self._namespace, self._name))
        if dig(lease, "spec", "holderIdentity") == self._identity:
            await self._client.replace(LEASES.path(self._namespace, self._name), self._claim(lease, holder=""))
            log.info("released the lease")

    async def _attempt(self) -> bool:
        """Take or renew where that is allowed. False when it is another's, or when no answer came in time."""
        # From before the request: the others' time runs from the write, however late its answer came.
        asked = self._monotonic()
        try:
            async with asyncio.timeout(self._times.deadline / 2):
                ours = await self._take_or_renew()
                self._renewed = asked if ours else self._renewed
                return ours
        except ConflictError:
            return False  # another one was faster
        except (ClusterError, TimeoutError) as error:
            log.warning("lease %s/%s: %s", self._namespace, self._name, error or "timed out")
            return False

    async def _take_or_renew(self) -> bool:
        """A renewal is one write, of the version that our last one made; only where that is no longer so we look."""
        if self._ours is not None:
            with contextlib.suppress(ConflictError, NotFoundError):  # somebody wrote it, or took it away: look
                await self._replace(self._ours)
                return True
            self._ours = None
        try:
            lease = await self._client.get(LEASES.path(self._namespace, self._name))
        except NotFoundError:
            claim = self._claim(None, holder=self._identity)
            self._stored(await self._client.create(LEASES.path(self._namespace), claim))
            return True
        if not self._is_free(lease):
            self._renewed = None
            return False
        await self._replace(lease)
        return True

    async def _replace(self, lease: Manifest) -> None:
        claim = self._claim(lease, holder=self._identity)
        self._stored(await self._client.replace(LEASES.path(self._namespace, self._name), claim))

    def _stored(self, lease: Manifest) -> None:
        self._ours, self.version = lease, version_of(lease)

    def _is_free(self, lease: Manifest) -> bool:
        holder = dig(lease, "spec", "holderIdentity", default="")
        version = str(dig(lease, "metadata", "resourceVersion"))
        if version != self._seen[0]:
            self._seen = (version, self._monotonic())
        duration = float(dig(lease, "spec", "leaseDurationSeconds", default=self._times.duration))
        return holder in ("", self._identity) or self._monotonic() - self._seen[1] > duration

    def _claim(self, lease: Manifest | None, holder: str) -> Manifest:
        """The Lease as it shall be, with the resourceVersion that was seen: of two who try only one succeeds."""
        before = dig(lease, "spec", "holderIdentity", default="")
        spec: dict[str, Any] = dict(dig(lease, "spec", default={}))
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec |= {
            "holderIdentity": holder,
            "renewTime": now,
            "leaseDurationSeconds": round(self._times.duration) if holder else 1,
        }
        if holder and holder != before:
            spec |= {
                "acquireTime": now,
                "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (lease is not None),
            }
        identity = {"apiVersion": LEASES.api_version, "kind": LEASES.kind}
        metadata = lease["metadata"] if lease is not None else self._born()
        return {**identity, "metadata": metadata, "spec": spec}

    def _born(self) -> dict[str, Any]:
        """Its owner is named when it is made and never again: whoever changes owners needs the right to delete.

        Source: the admission plugin OwnerReferencesPermissionEnforcement, which OpenShift has on.
        """
        owners = {} if self._owner is None else {"ownerReferences": [self._owner]}
        return {"name": self._name, "namespace": self._namespace, **owners}
