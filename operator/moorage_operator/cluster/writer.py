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


class Writer:
    """Applies, deletes and reports; every answer goes into the store at once."""

    def __init__(self, client: Client, store: Store) -> None:
        """Write through `client` and keep `store` up to date with what was written."""
        self._client = client
        self._store = store
        self._applied: dict[str, bytes] = {}  # uid -> digest of what was last applied to it

    async def apply(self, owner: Manifest, manifest: Manifest) -> bool:
        """Make the child as wanted by server-side apply. True when that changed it, and when it is there unexpectedly.

        A child of `owner` that the store did not know of shows that the plan was made without it: it must not be
        written over, and the next plan will see it. An apply that changes nothing counts as none: where a policy of the
        cluster turns our value into its own, each plan would otherwise call for the next one at once, for ever.

        Raises:
            ConflictError: an object of that name exists and is not `owner`'s. It is in the store afterwards, so that
                the next plan says so. Or one of `owner`'s is still on its way out.
        """
        if kind_of(manifest) == "Pod":
            return await self._create(owner, manifest)
        live = self._store.live(manifest)
        if live is None and (found := await self._look(owner, manifest)) is not None:
            self._refuse_foreign(owner, found)
            return True
        digest = _digest(manifest)
        if live is not None:
            self._refuse_foreign(owner, live)
            if includes(live, manifest) and self._applied.get(uid_of(live), digest) == digest:
                self._applied[uid_of(live)] = digest
                return False
        stored = await self._client.apply(address(manifest), _pinned(manifest, live))
        self._store.put(stored)
        self._applied[uid_of(stored)] = digest
        return live is None or version_of(stored) != version_of(live)

    async def _create(self, owner: Manifest, pod: Manifest) -> bool:
        """Make a pod. A pod cannot become another one, so it is never applied, and needs no right to change pods."""
        live = self._store.live(pod)
        if live is None:
            try:
                self._store.put(await self._client.create(PODS.path(namespace_of(pod)), pod))
            except ConflictError:
                live = await self._look(owner, pod)
                if live is None:
                    raise  # it went meanwhile
            else:
                return True
        self._refuse_foreign(owner, live)
        return False

    async def delete(self, manifest: Manifest) -> None:
        """Delete exactly this version of this object; one that is gone already is fine.

        Raises:
            ConflictError: it has changed since it was seen; look again.
        """
        version = str(manifest["metadata"]["resourceVersion"])
        with contextlib.suppress(NotFoundError):  # somebody was faster, which is what was wanted
            await self._client.delete(address(manifest), uid=uid_of(manifest), resource_version=version)
        self._applied.pop(uid_of(manifest), None)
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

    async def _look(self, owner: Manifest, manifest: Manifest) -> Manifest | None:
        """What the store cannot know: an object without our label that has the name that we are about to apply to."""
        try:
            # From the server's cache: enough, since only objects older than our own are looked for.
            found = await self._client.get(address(manifest), resourceVersion="0")
        except NotFoundError:
            return None
        if controller_uid(found) == uid_of(owner):
            if is_deleting(found):
                raise ConflictError(409, "is on its way out", f"{kind_of(found)} {name_of(found)}")
            self._store.put(found)
        else:
            self._store.put_foreign(Key(namespace_of(owner), name_of(owner)), found)
        return found

    @staticmethod
    def _refuse_foreign(owner: Manifest, live: Manifest) -> None:
        if controller_uid(live) != uid_of(owner):
            raise ConflictError(409, "exists and belongs to somebody else", f"{kind_of(live)} {name_of(live)}")


def _digest(manifest: Manifest) -> bytes:
    return hashlib.blake2b(orjson.dumps(manifest, option=orjson.OPT_SORT_KEYS), digest_size=_DIGEST_BYTES).digest()


def _pinned(manifest: Manifest, live: Manifest | None) -> Manifest:
    """With the uid of the object that was looked at: the API server refuses when it is another one by now."""
    if live is None:
        return manifest
    return {**manifest, "metadata": {**manifest["metadata"], "uid": uid_of(live)}}
