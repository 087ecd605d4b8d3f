"""Kopf's connections to the API server, which renew their credentials by themselves, each request its own.

Left to itself kopf answers a 401 by closing the session that all its watches share. A request of which half the answer
has come is then never told that the rest will not (aiohttp's `ResponseHandler.close` forgets who reads it), and its
watch hears nothing until it is given up for its silence, 70 s later.
"""

from collections.abc import Callable
from typing import Final

import aiohttp
import kopf

from moorage_operator.cluster.client import Connection

_UNAUTHORIZED: Final = 401


def renewing(connect: Callable[[], Connection]) -> kopf.AiohttpSession:
    """A session for kopf; to be called in the loop that kopf runs in.

    Only what no new credentials help against, such as another certificate, is still told to kopf, which asks for
    another session then.

    Args:
        connect: reads the credentials; called again when the server no longer accepts them, since tokens rotate.
    """
    renewal = _Renewal(connect)
    connector = aiohttp.TCPConnector(limit=0, ssl=renewal.connection.tls or True)
    session = aiohttp.ClientSession(connector=connector, middlewares=[renewal])
    return kopf.AiohttpSession(server=renewal.connection.server, aiohttp_session=session)


class _Renewal:
    """Says who we are in each request, and says it anew when that is not accepted."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self.connection = connect()

    async def __call__(self, request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        used = self.connection
        request.headers.update(used.headers)
        response = await send(request)
        if response.status != _UNAUTHORIZED:
            return response
        response.close()
        if self.connection is used:  # of those that are refused at the same time the first one reads them for all
            self.connection = self._connect()
        request.headers.update(self.connection.headers)
        return await send(request)
