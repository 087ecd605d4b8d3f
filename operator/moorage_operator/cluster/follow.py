"""A few objects that kopf cannot watch for us, since it knows one selector for each kind: listed, then watched."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Final

from moorage_operator.cluster.client import Client
from moorage_operator.cluster.resources import Resource
from moorage_operator.manifest import Manifest, uid_of

_BETWEEN: Final = 1.0
"""Seconds between the end of a watch and the next list, so that a server that ends watches at once is not flooded."""


async def follow(client: Client, resource: Resource, namespace: str) -> AsyncIterator[Mapping[str, Manifest]]:
    """All objects of a kind by uid, at the beginning and after each change, for ever.

    Raises:
        ClusterError: they cannot be listed or watched any more; begin again.
    """
    while True:
        listed, version = await client.list(resource, namespace)
        known = {uid_of(one): one for one in listed}
        yield dict(known)
        async for event in client.watch(resource, namespace, version):
            if event["type"] == "DELETED":
                known.pop(uid_of(event["object"]), None)
            else:
                known[uid_of(event["object"])] = event["object"]
            yield dict(known)
        await asyncio.sleep(_BETWEEN)
