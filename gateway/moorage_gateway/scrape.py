"""Asks every target how it is, often while this gateway uses it, and finds out when an ejected one is back."""

import asyncio
import logging
import time
import zlib
from collections.abc import Callable
from typing import Final

import aiohttp

from moorage_api import names
from moorage_gateway import report
from moorage_gateway.signal import Signal
from moorage_gateway.table import Table, Target
from moorage_gateway.targets import Targets

log = logging.getLogger(__name__)

_TICK_SECONDS: Final = 1.0
_IDLE_TICKS: Final = 10
"""A target that is not in use is asked on every tenth tick."""
_TIMEOUT: Final = aiohttp.ClientTimeout(total=1.0, sock_connect=0.9)
_UNREACHABLE: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
_NO_ANSWER: Final = (aiohttp.ClientError, TimeoutError)
_AT_ONCE: Final = 32
_LONGEST: Final = 64 * 2**10
_OK: Final = 200


class Scraper:
    """Keeps `Targets` fresh, and calls `keep` on each tick, with the table that everything else is to agree with."""

    def __init__(
        self,
        table: Callable[[], Table],
        session: aiohttp.ClientSession,
        targets: Targets,
        keep: Callable[[Table], None],
        tick_seconds: float = _TICK_SECONDS,
    ) -> None:
        self._table, self._session, self._targets, self._keep = table, session, targets, keep
        self._tick_seconds = tick_seconds
        self._permits = asyncio.Semaphore(_AT_ONCE)
        self._owing: set[str] = set()  # targets that did not answer when they were asked last

    async def run(self) -> None:
        """Scrape until cancelled."""
        tick = 0
        while True:
            await asyncio.gather(self._scrape_due(tick), asyncio.sleep(self._tick_seconds))
            tick += 1

    async def greet(self, changes: Signal) -> None:
        """Ask new targets as soon as the table has them, until cancelled: one without figures hides the others."""
        changed = changes.next
        while True:
            await changed.wait()
            changed = changes.next
            new = [target for target in self._table().targets() if self._targets.is_new(target.key)]
            await asyncio.gather(*(self._scrape(target) for target in new))

    async def _scrape_due(self, tick: int) -> None:
        table, now = self._table(), time.monotonic()
        found = {target.key: target for target in table.targets()}
        self._targets.keep(found)
        self._owing &= found.keys()
        self._keep(table)
        await asyncio.gather(*(self._look(target, tick, now) for target in found.values()))

    async def _look(self, target: Target, tick: int, now: float) -> None:
        key, targets = target.key, self._targets
        if key in targets.ejected:
            if targets.probe_due(key, now):
                await self._probe(target)
            return
        often = key in self._owing or targets.scrape_often(key, now - _IDLE_TICKS * self._tick_seconds)
        if often or (zlib.crc32(key.encode()) + tick) % _IDLE_TICKS == 0:
            await self._scrape(target)

    async def _scrape(self, target: Target) -> None:
        try:
            status, body = await self._get(target, names.TELEMETRY_PATH)
        except _UNREACHABLE:
            self._owing.add(target.key)
            self._note_unreachable(target)
        except _NO_ANSWER as error:
            self._owing.add(target.key)
            log.debug("%s: no telemetry: %s", target.pod, error or type(error).__name__)
        else:
            self._owing.discard(target.key)
            self._targets.reached(target.key)
            if status == _OK and (said := report.parse(body)) is not None:
                self._targets.note(target.key, said, time.monotonic())

    async def _probe(self, target: Target) -> None:
        """Half-open: whether it takes requests again, by its own word, decides."""
        try:
            status, _ = await self._get(target, names.READY_PATH)
        except _NO_ANSWER as error:
            log.debug("%s: not back yet: %s", target.pod, error or type(error).__name__)
            status = 0
        if status == _OK:
            log.info("%s (%s) takes requests again", target.pod, target.address)
            self._targets.succeeded(target.key)
        else:
            self._targets.failed(target.key, time.monotonic(), connected=status > 0)

    async def _get(self, target: Target, path: str) -> tuple[int, bytes]:
        url = f"http://{target.address}{path}"
        async with self._permits, self._session.get(url, timeout=_TIMEOUT, allow_redirects=False) as answer:
            return answer.status, await answer.content.read(_LONGEST)

    def _note_unreachable(self, target: Target) -> None:
        if self._targets.failed(target.key, time.monotonic(), connected=False):
            log.warning("%s (%s) takes no connections: left out until it does", target.pod, target.address)
