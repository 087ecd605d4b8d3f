"""Asks every target for its load, often while this gateway uses it, and finds out when an ejected one is back."""

import asyncio
import logging
import time
import zlib
from collections.abc import Callable
from typing import Final

import aiohttp
import orjson

from moorage_api import names
from moorage_gateway.metrics import Metrics
from moorage_gateway.table import Table, Target
from moorage_gateway.targets import Targets

log = logging.getLogger(__name__)

_TICK_SECONDS: Final = 1.0
_IDLE_TICKS: Final = 10
"""A target that is not in use is asked on every tenth tick."""
_TIMEOUT: Final = aiohttp.ClientTimeout(total=1.0)
_AT_ONCE: Final = 32
_LONGEST: Final = 64 * 2**10


class Scraper:
    """Keeps `Targets` fresh, and both it and the metrics free of what the table no longer has."""

    def __init__(
        self,
        table: Callable[[], Table],
        session: aiohttp.ClientSession,
        targets: Targets,
        metrics: Metrics,
        tick_seconds: float = _TICK_SECONDS,
    ) -> None:
        self._table, self._session, self._targets, self._metrics = table, session, targets, metrics
        self._tick_seconds = tick_seconds
        self._permits = asyncio.Semaphore(_AT_ONCE)

    async def run(self) -> None:
        """Scrape until cancelled."""
        tick = 0
        while True:
            await asyncio.gather(self._scrape_due(tick), asyncio.sleep(self._tick_seconds))
            tick += 1

    async def _scrape_due(self, tick: int) -> None:
        table, now = self._table(), time.monotonic()
        found = {target.key: target for target in table.targets()}
        self._targets.keep(found)
        self._metrics.keep(table.full.values())
        due = [target for target in found.values() if self._due(target, tick, now)]
        await asyncio.gather(*(self._scrape(target) for target in due))

    def _due(self, target: Target, tick: int, now: float) -> bool:
        key = target.key
        if key in self._targets.ejected:
            return self._targets.probe_due(key, now)
        in_use = self._targets.used_since(key, now - _IDLE_TICKS * self._tick_seconds)
        return in_use or (zlib.crc32(key.encode()) + tick) % _IDLE_TICKS == 0

    async def _scrape(self, target: Target) -> None:
        async with self._permits:
            try:
                body = await self._get(f"http://{target.address}{names.TELEMETRY_PATH}")
            except (aiohttp.ClientError, TimeoutError) as error:
                log.debug("%s: no telemetry: %s", target.pod, error or type(error).__name__)
                if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
                    self._note_failure(target)
                return
        self._targets.succeeded(target.key)
        if (requests := _requests(body)) is not None:
            self._targets.report(target.key, requests)

    async def _get(self, url: str) -> bytes:
        async with self._session.get(url, timeout=_TIMEOUT, allow_redirects=False) as answer:
            body = await answer.content.read(_LONGEST)
            return body if answer.status == 200 else b""  # noqa: PLR2004 - HTTP's OK

    def _note_failure(self, target: Target) -> None:
        if self._targets.failed(target.key, time.monotonic()):
            log.warning("%s (%s) takes no connections: left out until it does", target.pod, target.address)
            self._metrics.ejections.inc()


def _requests(body: bytes) -> int | None:
    """Running and waiting requests that `/telemetry` reports; None where it reports no such figure."""
    try:
        figures = orjson.loads(body)
        return int(figures["running"]) + int(figures["waiting"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None
