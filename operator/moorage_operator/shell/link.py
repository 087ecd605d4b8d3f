"""The connection to one gateway: its `/telemetry?watch`, opened again whenever it ends.

A gateway that says nothing for 15 s, though it has promised a word every 5 s, does not answer: what it said last is
kept, and not believed.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import aiohttp

from moorage_operator.cluster.lines import lines
from moorage_operator.manifest import Key
from moorage_operator.plan.figures import Gateway
from moorage_operator.shell.queue import Backoff
from moorage_operator.shell.views import News, View

log = logging.getLogger(__name__)

SILENCE: Final = 15.0
"""Seconds without a line, after which a gateway does not answer."""


@dataclass(frozen=True)
class Pace:
    """Seconds: of silence, and between tries to connect."""

    silence: float = SILENCE
    again: Backoff = field(default_factory=lambda: Backoff(shortest=0.2, longest=5.0))


class Link:
    """The connection to one gateway pod, and what came over it.

    Args:
        name: of the pod.
        url: of its telemetry stream.
        told: called with what each line brought.
        turned: called when it begins or ceases to answer.
        pace: how patient to be.
        now: the time.
    """

    def __init__(
        self,
        name: str,
        url: str,
        told: Callable[[News], None],
        turned: Callable[["Link"], None],
        pace: Pace,
        *,
        now: Callable[[], datetime],
    ) -> None:
        self.name = name
        self.url = url
        self.leaving = False
        self.ready = False
        self.answering = False
        self.heard = False  # whether a line has come over this connection
        self.spoke = asyncio.Event()
        """Set once a line has come."""
        self._told, self._turned, self._pace, self._now = told, turned, pace, now
        self._view = View()
        self._last_word: datetime | None = None
        self._silent: asyncio.TimerHandle | None = None

    @property
    def certificate(self) -> str:
        """By which it proves itself when it serves metrics, as PEM; empty while it does not."""
        return self._view.certificate

    def of(self, key: Key) -> Gateway:
        """Its view of one deployment."""
        model = self._view.of(key)
        return Gateway(
            name=self.name,
            started=self._view.started,
            answering=self.answering,
            revisions=model.revisions,
            pods=model.pods,
            ttft_bounds=self._view.ttft_bounds,
            itl_bounds=self._view.itl_bounds,
            ready=self.ready,
            held=model.held,
            quiet_since=model.quiet_since,
            heard=self._last_word,
        )

    async def listen(self, session: aiohttp.ClientSession, chance: Callable[[], float]) -> None:
        """Read what it says, and connect again whenever that ends, until cancelled."""
        failures = 0
        try:
            while True:
                self.heard = False
                try:
                    await self._read(session)
                    why = "its stream ended"
                except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                    why = str(error) or type(error).__name__
                failures = 1 if self.heard else failures + 1
                delay = self._pace.again.delay(failures, chance())
                log.info("gateway %s: %s; again in %.1f s", self.name, why, delay)
                await asyncio.sleep(delay)
        finally:
            if self._silent is not None:
                self._silent.cancel()

    async def _read(self, session: aiohttp.ClientSession) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=2, sock_read=self._pace.silence)
        async with session.get(self.url, timeout=timeout, raise_for_status=True, allow_redirects=False) as response:
            async for line in lines(response.content.iter_any()):
                self._take(line)

    def _take(self, line: bytes) -> None:
        arrived = self._now()
        news = self._view.take(line, arrived)
        self._last_word = arrived
        self.heard = True
        self.spoke.set()
        if self._silent is not None:
            self._silent.cancel()
        self._silent = asyncio.get_running_loop().call_later(self._pace.silence, self._fall_silent)
        if not self.answering:
            self.answering = True
            self._turned(self)
        self._told(news)

    def _fall_silent(self) -> None:
        self.answering = False
        log.warning("gateway %s: no word for %g s", self.name, self._pace.silence)
        self._turned(self)
