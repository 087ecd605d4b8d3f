"""Writes to the API server, and only those that change something.

A write is left out when the live object in the store already has all that is wanted (so a resync, or a restart of the
operator, writes nothing) and when what was last applied to it is the same (so that a field that is no longer wanted
goes).
"""

import contextlib
import hashlib
from typing import Final

import orjson

from moorage_api import names
from moorage_operator.cluster.client import Client, ConflictError, NotFoundError
from moorage_operator.cluster.compare import includes
from moorage_operator.cluster.resources import DEPLOYMENTS, PODS, address
from moorage_operator.cluster.store import Store
from moorage_operator.manifest import (
    LEADER_WORKER_SET,
    Key,
    Manifest,
    controller_uid,
    dig,
    is_deleting,
    kind_of,
    name_of,
    namespace_of,
    uid_of,
    version_of,
)

_DIGEST_BYTES: Final = 16
_NEVER: Final = "1"
"""A version that no object ever has, since etcd counts from 2. Of an object that is not there none is compared.
Source: Store.Update in the API server's registry/generic/registry/store.go."""


class Writer:
    """Applies, deletes and reports; every answer goes into the store at once."""

    def __init__(self, client: Client, store: Store) -> None:
        """Write through `client` and keep `store` up to date with what was written."""
        self._client = client
        self._store = store
        self._applied: dict[str, bytes] = {}  # uid -> digest of what was last applied to it
        self._as_wanted: dict[str, Manifest] = {}  # uid -> the live object that had all of it, as the store has it

    async def apply(self, owner: Manifest, manifest: Manifest) -> bool:
        """Make the child as wanted by server-side apply. True when that changed it.

        An apply that changes nothing counts as none: where a policy of the cluster turns our value into its own, each
        plan would otherwise call for the next one at once, for ever.

        Raises:
            ConflictError: the child is not what the plan was made by. An object of that name that the store did not
                know of is in the store afterwards: one of `owner`'s must not be written over, and that somebody else's
                is in the way the next plan says.
        """
        if kind_of(manifest) == "Pod":
            return await self._create(owner, manifest)
        live, digest = self._store.live(manifest), _digest(manifest)
        if live is not None:
            self._refuse_foreign(owner, live)
            if self._is_there(live, manifest, digest):
                return False
        try:
            stored = await self._client.apply(address(manifest), _pinned(manifest, live))
        except ConflictError:
            if live is None:
                await self._look(owner, manifest)
            raise
        self._store.put(stored)
        self._applied[uid_of(stored)] = digest
        self._as_wanted.pop(uid_of(stored), None)
        return live is None or version_of(stored) != version_of(live)

    def _is_there(self, live: Manifest, manifest: Manifest, digest: bytes) -> bool:
        uid = uid_of(live)
        if self._applied.get(uid, digest) != digest:
            return False
        if self._as_wanted.get(uid) is not live:  # most looks find nothing new of it, and need not look closely
            if not includes(live, manifest):
                return False
            self._applied[uid], self._as_wanted[uid] = digest, live
        return True

    async def _create(self, owner: Manifest, pod: Manifest) -> bool:
        """Make a pod. A pod cannot become another one, so it is never applied, and needs no right to change pods."""
        live = self._store.live(pod)
        if live is not None:
            self._refuse_foreign(owner, live)
            return False
        try:
            self._store.put(await self._client.create(PODS.path(namespace_of(pod)), pod))
        except ConflictError:
            await self._look(owner, pod)
            raise
        return True

    async def delete(self, manifest: Manifest) -> None:
        """Delete exactly this version of this object; one that is gone already is fine.

        Raises:
            ConflictError: it has changed since it was seen; look again.
        """
        version = str(manifest["metadata"]["resourceVersion"])
        with contextlib.suppress(NotFoundError):  # somebody was faster, which is what was wanted
            # The pods of a LeaderWorkerSet but the first belong to the first one, which may take minutes to end.
            order = {"propagation": "Foreground"} if kind_of(manifest) == LEADER_WORKER_SET else {}
            await self._client.delete(address(manifest), uid=uid_of(manifest), resource_version=version, **order)
        self.forget(manifest)
        self._store.removed(manifest)

    async def report(self, deployment: Manifest, status: Manifest) -> bool:
        """Write the status when it differs from the known one. True when that changed what is known.

        A deployment that is not there any more leaves the store: a watch may have missed its deletion, and its
        children would be made again for ever.
        """
        if dig(deployment, "status") == status:
            return False
        namespace, name = namespace_of(deployment), name_of(deployment)
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            # With the uid, so that a status never lands on a re-created object of the same name.
            "metadata": {"name": name, "namespace": namespace, "uid": uid_of(deployment)},
            "status": status,
        }
        try:
            self._store.put(await self._client.apply(DEPLOYMENTS.path(namespace, name) + "/status", body))
        except NotFoundError:
            self._store.remove(deployment)
        return True

    async def is_gone(self, stranger: Manifest) -> bool:
        """Whether somebody else's object, of which no watch tells, is no longer there; the store then forgets it."""
        try:
            self._store.put(await self._client.get(address(stranger)))
        except NotFoundError:
            self._store.remove(stranger)
            return True
        return False

    def forget(self, manifest: Manifest) -> None:
        """The object is gone: what was applied to it need not be remembered."""
        self._applied.pop(uid_of(manifest), None)
        self._as_wanted.pop(uid_of(manifest), None)

    async def _look(self, owner: Manifest, manifest: Manifest) -> None:
        """Take in what has the name that we wanted for a new object.

        Either no watch has told of it yet, or it does not have our label, so that none ever will.
        """
        try:
            found = await self._client.get(address(manifest))
        except NotFoundError:
            return  # it went meanwhile
        if controller_uid(found) != uid_of(owner):
            self._store.put_foreign(Key(namespace_of(owner), name_of(owner)), found)
        elif not is_deleting(found):  # one on its way out is to be made anew once it is gone
            self._store.put(found)

    @staticmethod
    def _refuse_foreign(owner: Manifest, live: Manifest) -> None:
        if controller_uid(live) != uid_of(owner):
            raise ConflictError(409, "exists and belongs to somebody else", f"{kind_of(live)} {name_of(live)}")


def _digest(manifest: Manifest) -> bytes:
    return hashlib.blake2b(orjson.dumps(manifest, option=orjson.OPT_SORT_KEYS), digest_size=_DIGEST_BYTES).digest()


def _pinned(manifest: Manifest, live: Manifest | None) -> Manifest:
    """So that the API server refuses (409) when what is there is not what was looked at: another object, or any."""
    looked_at = {"resourceVersion": _NEVER} if live is None else {"uid": uid_of(live)}
    return {**manifest, "metadata": {**manifest["metadata"], **looked_at}}
