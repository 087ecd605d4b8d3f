"""One gateway process: puts the parts together, runs them, and on SIGTERM lets open streams end."""

import asyncio
import logging
import random
import signal
import socket
import ssl
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, Final

import aiohttp
import orjson
import uvicorn

from moorage_api import names
from moorage_gateway import measure, peers
from moorage_gateway.api_server import ApiServer
from moorage_gateway.app import App
from moorage_gateway.clock import Clock
from moorage_gateway.custom_metrics import CustomMetrics
from moorage_gateway.door import Door
from moorage_gateway.draw import Draws
from moorage_gateway.figures import Book
from moorage_gateway.front_proxy import CONFIG_MAP, FrontProxy, Trust
from moorage_gateway.internal import InternalApp
from moorage_gateway.lines import Lines, Patience
from moorage_gateway.measure import Unknown
from moorage_gateway.metrics import Metrics
from moorage_gateway.peers import Peers
from moorage_gateway.protocol import PeerProtocol, protocol
from moorage_gateway.proxy import Proxy
from moorage_gateway.request import Limits
from moorage_gateway.routes import Routes
from moorage_gateway.scrape import Scraper
from moorage_gateway.settings import Settings
from moorage_gateway.table import Model, Table
from moorage_gateway.targets import Targets
from moorage_gateway.telemetry import Telemetry
from moorage_gateway.upstream import new_session
from moorage_gateway.view import View
from moorage_gateway.watch import Watcher

log = logging.getLogger(__name__)

_KEEP_ALIVE_SECONDS: Final = 75
"""Idle connections of clients. Longer than clients (5 s in OpenAI's own) and load balancers (60 s) keep them: whoever
closes later never cuts a request that is on its way."""
_LEAVE_SECONDS: Final = 2.0
"""From SIGTERM until connections without a request are closed. Those with requests have gone elsewhere by then, and of
those that were silent for so long hardly one sends something at the very moment in which it is closed."""

_HELD_PART: Final = 1 / 3
"""Of the time to drain, those that wait for a replica have so much until they get one: the rest is for its answer."""


class Server(uvicorn.Server):
    """uvicorn's server without its signal handling: two of them share this process, which exits 0 once drained."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to `serve`."""
        yield

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until `should_exit` is set. Also when it is cancelled nobody is let in any more."""
        try:
            await super().serve(sockets)
        finally:
            for listening in getattr(self, "servers", ()):
                listening.close()


def public_server(app: App, settings: Settings, limits: Limits, leaving: Callable[[], bool] = lambda: False) -> Server:
    """The server towards clients; it stops when its `should_exit` is set, after at most the drain time.

    While it is `leaving` it sends clients elsewhere, each with its next answer.
    """
    return _server(app, settings, settings.public_port, settings.drain_seconds, http=protocol(limits, leaving))


def internal_server(app: InternalApp, settings: Settings) -> Server:
    """The server towards the cluster; it stops when its `should_exit` is set."""
    return _server(app, settings, settings.internal_port, drain_seconds=1)


def metrics_server(app: CustomMetrics, settings: Settings, limits: Limits, tls: ssl.SSLContext) -> Server:
    """The server towards autoscalers; it stops when its `should_exit` is set."""
    http = protocol(limits, lambda: False, PeerProtocol)
    return _server(app, settings, settings.metrics_port, drain_seconds=1, http=http, tls=tls)


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT, then drain.

    Raises:
        kubernetes.aio.config.ConfigException: no API server is configured.
    """
    stop = _stop_signal()
    api = await ApiServer.connect(settings.kubeconfig)
    async with aclosing(api), new_session(settings.connect_seconds, settings.idle_seconds) as session:
        await _Gateway(settings, api, session).run(stop)


class _Gateway:
    """All parts of one gateway, put together."""

    def __init__(self, settings: Settings, api: ApiServer, session: aiohttp.ClientSession) -> None:
        self._settings, self._api, self._session = settings, api, session
        self._limits = Limits(settings.max_header_bytes, settings.max_body_bytes, settings.client_seconds)
        self._routes, self._targets, self._book, self._draws = Routes(), Targets(), Book(), Draws(random.random)
        self._metrics = Metrics(self._book, self._targets)
        patience = Patience(
            settings.hold_requests, settings.hold_seconds, settings.hold_stream_seconds, settings.hold_mib * 2**20
        )
        self._lines = Lines(lambda: self._routes.table, self._routes.changes, self._book, patience)
        self._clock, name = Clock(), settings.pod_name or socket.gethostname()
        self._view = View(lambda: self._routes.table, self._book, self._targets, self._clock)
        self._peers = Peers(session, name)
        self._trust = Trust()
        self._door = Door(self._trust, _names(settings), self._open, self._routes.changes)
        self._telemetry = Telemetry(
            name, self._clock, self._view, self._routes.changes, certificate=lambda: self._door.certificate
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Run all of it until told to stop. A part that fails is a defect and ends the process: it is started anew."""
        settings = self._settings
        proxy = Proxy(self._session, self._targets, self._book, self._lines, self._draws)
        app = App(self._table, proxy, self._metrics, self._limits)
        public = public_server(app, settings, self._limits, leaving=stop.is_set)
        inside = InternalApp(self._metrics, self._telemetry, synced=lambda: self._routes.synced, draining=stop.is_set)
        internal = internal_server(inside, settings)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in self._background()]
            serving_internal = group.create_task(internal.serve())
            serving = group.create_task(public.serve())
            await stop.wait()
            log.info("draining: open streams have %s s", settings.drain_seconds)
            self._lines.close(settings.drain_seconds * _HELD_PART)
            await asyncio.sleep(_LEAVE_SECONDS)
            public.should_exit = True
            await serving
            self._telemetry.close()
            internal.should_exit = True
            await serving_internal
            for task in tasks:
                task.cancel()
        log.info("drained")

    def _background(self) -> Iterator[Coroutine[Any, Any, None]]:
        settings, routes = self._settings, self._routes
        scraper = Scraper(lambda: routes.table, self._session, self._targets, self._keep)
        yield scraper.run()
        yield scraper.greet(routes.changes)
        yield self._lines.run()
        for watcher in routes.watchers(self._api, settings.watch_namespace):
            yield watcher.run()
        if settings.namespace:
            yield Watcher(self._api, peers.resource(settings.namespace), self._peers).run()
            yield self._peers.run()
        if settings.metrics_port:
            yield Watcher(self._api, CONFIG_MAP, self._trust).run()
            yield self._door.run()

    def _open(self, front_proxy: FrontProxy, tls: ssl.SSLContext) -> Server:
        app = CustomMetrics(front_proxy, self._table, self._figure)
        return metrics_server(app, self._settings, self._limits, tls)

    def _figure(self, model: Model, metric: str) -> float | Unknown:
        """Over all gateways, of which this is one."""
        now = time.monotonic()
        own = measure.read(orjson.loads(self._view.part(model, now)), self._clock.text(now), now)
        silent = self._peers.silent(model.key) if self._settings.namespace else ()
        return measure.figure(metric, model, [own, *self._peers.told(model.key)], silent=silent)

    def _table(self) -> Table | None:
        return self._routes.table if self._routes.synced else None

    def _keep(self, now: Table) -> None:
        self._book.asked(now.full.values(), self._targets.busy)
        self._book.keep(now.full.values())
        self._draws.keep(now.full.values())


def _names(settings: Settings) -> list[str]:
    """What the API server calls this gateway's door: as the Service of it is called."""
    service = f"{names.GATEWAY_METRICS}.{settings.namespace or 'default'}"
    return [f"{service}.svc", service, f"{service}.svc.cluster.local"]


def _server(
    app: Any,
    settings: Settings,
    port: int,
    drain_seconds: int,
    *,
    http: Any = "httptools",
    tls: ssl.SSLContext | None = None,
) -> Server:
    """A server without what we do not use; `proxy_headers` would believe what a client says of its address."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=port,
        http=http,
        loop="none",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=drain_seconds,
        ssl_context_factory=None if tls is None else _given(tls),
    )
    return Server(config)


def _given(tls: ssl.SSLContext) -> Callable[..., ssl.SSLContext]:
    return lambda *_: tls


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
