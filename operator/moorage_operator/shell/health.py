"""/healthz, /readyz and /metrics."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from moorage_api import names

SILENCE_LIMIT: Final = 180.0
"""Seconds without any event: the Lease alone brings one every 2 s, so this is deafness, and a restart is the cure."""


class Pulse:
    """When something was last heard, and whether the operator may be asked for anything."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: seconds that never go back."""
        self._clock = clock
        self._heard: float | None = None
        self.ready = False

    def beat(self) -> None:
        """Something was heard."""
        self._heard = self._clock()

    def silence(self) -> float:
        """Seconds since something was heard; 0 while nothing is listened to, since a follower hears nothing."""
        return 0.0 if self._heard is None else self._clock() - self._heard


def application(pulse: Pulse, registry: CollectorRegistry) -> web.Application:
    """The three pages."""

    async def healthz(_: web.Request) -> web.Response:
        silence = pulse.silence()
        if silence > SILENCE_LIMIT:
            return web.Response(status=503, text=f"nothing was heard from the API server for {silence:.0f} s\n")
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        if not pulse.ready:
            return web.Response(status=503, text="the cluster has not been read yet\n")
        return web.Response(text="ok\n")

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    app = web.Application()
    app.router.add_get(names.HEALTH_PATH, healthz)
    app.router.add_get(names.READY_PATH, readyz)
    app.router.add_get(names.METRICS_PATH, metrics)
    return app


@asynccontextmanager
async def served(app: web.Application, port: int) -> AsyncIterator[int]:
    """Serve on all addresses; gives the port, which matters when 0 was asked for."""
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, None, port)
    await site.start()
    try:
        yield next((address[1] for address in runner.addresses), port)
    finally:
        await runner.cleanup()
