"""One gateway process: puts the parts together, runs them, and on SIGTERM lets open streams end."""

import asyncio
import logging
import random
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import uvicorn

from moorage_gateway.api_server import ApiServer
from moorage_gateway.app import App
from moorage_gateway.draw import Draws
from moorage_gateway.figures import Book
from moorage_gateway.internal import InternalApp
from moorage_gateway.metrics import Metrics
from moorage_gateway.protocol import protocol
from moorage_gateway.proxy import Proxy
from moorage_gateway.request import Limits
from moorage_gateway.routes import Routes
from moorage_gateway.scrape import Scraper
from moorage_gateway.settings import Settings
from moorage_gateway.table import Table
from moorage_gateway.targets import Targets
from moorage_gateway.telemetry import Telemetry
from moorage_gateway.upstream import new_session
from moorage_gateway.view import View

log = logging.getLogger(__name__)

_KEEP_ALIVE_SECONDS: Final = 75
"""Idle connections of clients. Longer than clients (5 s in OpenAI's own) and load balancers (60 s) keep them: whoever
closes later never cuts a request that is on its way."""
_LEAVE_SECONDS: Final = 2.0
"""From SIGTERM until connections without a request are closed. Those with requests have gone elsewhere by then, and of
those that were silent for so long hardly one sends something at the very moment in which it is closed."""


class Server(uvicorn.Server):
    """uvicorn's server without its signal handling: two of them share this process, which exits 0 once drained."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to `serve`."""
        yield


def public_server(app: App, settings: Settings, limits: Limits, leaving: Callable[[], bool] = lambda: False) -> Server:
    """The server towards clients; it stops when its `should_exit` is set, after at most the drain time.

    While it is `leaving` it sends clients elsewhere, each with its next answer.
    """
    return _server(app, settings, settings.public_port, settings.drain_seconds, http=protocol(limits, leaving))


def internal_server(app: InternalApp, settings: Settings) -> Server:
    """The server towards the cluster; it stops when its `should_exit` is set."""
    return _server(app, settings, settings.internal_port, drain_seconds=1)


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT, then drain.

    Raises:
        kubernetes.aio.config.ConfigException: no API server is configured.
    """
    stop = _stop_signal()
    api = await ApiServer.connect(settings.kubeconfig)
    routes, targets, book, draws = Routes(), Targets(), Book(), Draws(random.random)
    metrics = Metrics(book, targets)
    view = View(lambda: routes.table, book, targets)
    telemetry = Telemetry(settings.pod_name or socket.gethostname(), _now(), view, lambda: routes.changed)
    limits = Limits(settings.max_header_bytes, settings.max_body_bytes, settings.client_seconds)

    def table() -> Table | None:
        return routes.table if routes.synced else None

    def forget(now: Table) -> None:
        book.keep(now.full.values())
        draws.keep(now.full.values())

    async with aclosing(api), new_session(settings.connect_seconds, settings.idle_seconds) as session:
        app = App(table, Proxy(session, targets, book, draws), metrics, limits)
        scraper = Scraper(lambda: routes.table, session, targets, forget)
        watchers = routes.watchers(api, settings.watch_namespace)
        background = [scraper.run(), *(watcher.run() for watcher in watchers)]
        inside = InternalApp(metrics, telemetry, synced=lambda: routes.synced, draining=stop.is_set)
        public = public_server(app, settings, limits, leaving=stop.is_set)
        servers = public, internal_server(inside, settings)
        await _run(*servers, telemetry, background, stop)


async def _run(
    public: Server,
    internal: Server,
    telemetry: Telemetry,
    background: list[Coroutine[Any, Any, None]],
    stop: asyncio.Event,
) -> None:
    """Run all of it until told to stop. A part that fails is a defect and ends the process: it is started anew."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in background]
        serving_internal = group.create_task(internal.serve())
        serving = group.create_task(public.serve())
        await stop.wait()
        log.info("draining: open streams have %s s", public.config.timeout_graceful_shutdown)
        await asyncio.sleep(_LEAVE_SECONDS)
        public.should_exit = True
        await serving
        telemetry.close()
        internal.should_exit = True
        await serving_internal
        for task in tasks:
            task.cancel()
    log.info("drained")


def _server(app: Any, settings: Settings, port: int, drain_seconds: int, *, http: Any = "httptools") -> Server:
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
    )
    return Server(config)


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
