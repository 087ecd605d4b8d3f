"""The door for autoscalers: opened once it is known who may come in, and anew when that changes."""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Sequence
from typing import Protocol

from moorage_gateway import certificate
from moorage_gateway.certificate import Pair
from moorage_gateway.front_proxy import FrontProxy, Trust
from moorage_gateway.signal import Signal

log = logging.getLogger(__name__)


class Server(Protocol):
    """What serves behind the door."""

    should_exit: bool

    async def serve(self) -> None:
        """Serve until `should_exit` is set."""


Open = Callable[[FrontProxy, ssl.SSLContext], Server]


class Door:
    """Serves custom metrics whenever the API server can be told from others.

    Args:
        trust: How the API server is known.
        names: What this door is called by those who come.
        open_: Makes the server, of the front proxy that it is for and with its side of TLS.
        changes: Told when the certificate is another.

    Attributes:
        certificate: As PEM, what the door is known by; empty while it is shut.
    """

    def __init__(self, trust: Trust, names: Sequence[str], open_: Open, changes: Signal) -> None:
        self._trust, self._names, self._open, self._changes = trust, names, open_, changes
        self.certificate = ""

    async def run(self) -> None:
        """Keep the door, until cancelled, with another certificate long before the first has run out."""
        while True:
            await self._keep(certificate.self_signed(self._names))

    async def _keep(self, pair: Pair) -> None:
        """Serve with one certificate, until it should be renewed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(certificate.RENEW_SECONDS):
                while True:
                    changed = self._trust.changes.next
                    if (front_proxy := self._trust.now) is not None:
                        await self._serve(pair, front_proxy, changed)
                    else:
                        await changed.wait()

    async def _serve(self, pair: Pair, front_proxy: FrontProxy, changed: asyncio.Event) -> None:
        """Serve one front proxy until there is another. Connections end then: they were let in by the one before."""
        try:
            tls = certificate.context(pair, front_proxy.authorities)
        except ssl.SSLError as error:
            log.warning("no custom metrics are served: the API server's authorities are no certificates: %s", error)
            await changed.wait()
            return
        server = self._open(front_proxy, tls)
        serving = asyncio.create_task(server.serve())
        waiting = asyncio.create_task(changed.wait())
        self._tell(pair.certificate)
        try:
            await asyncio.wait((serving, waiting), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._tell("")
            waiting.cancel()
            server.should_exit = True
            await serving

    def _tell(self, now: str) -> None:
        self.certificate = now
        self._changes.tell()
