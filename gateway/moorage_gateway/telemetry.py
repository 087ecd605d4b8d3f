"""`/telemetry` and `/telemetry?watch`: the view as one JSON object, or as a stream of what changed in it (NDJSON).

A reader is owed the difference between what it got last and what is so now, never a queue of what happened in between:
however slow it is, it costs one view of references and what the connection buffers.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from moorage_gateway.answers import Headers, Receive, Send
from moorage_gateway.client import Client
from moorage_gateway.clock import Clock
from moorage_gateway.signal import Signal
from moorage_gateway.view import BUCKETS, Parts, View

log = logging.getLogger(__name__)

_NDJSON: Final[Headers] = [(b"content-type", b"application/x-ndjson"), (b"cache-control", b"no-store")]


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds.

    Attributes:
        tick: How often figures that changed are told.
        soonest: At least so long between two lines, however often targets change.
        heartbeat: After so long without a line the next tick makes one.
        slow: A reader that takes longer over a line gets a whole view next.
        patience: A reader that takes longer over a line has lost its stream.
    """

    tick: float = 1.0
    soonest: float = 0.05
    heartbeat: float = 4.0
    slow: float = 5.0
    patience: float = 30.0


class Telemetry:
    """Tells the operator what this gateway routes to and has counted.

    Args:
        gateway: The name of this gateway's pod.
        clock: Tells the time, and since when everything has been counted.
        view: What is told.
        changes: Told when targets change, or requests begin or cease to wait for some.
        certificate: Gives the certificate, as PEM, that custom metrics are served with; empty while they are not.
    """

    def __init__(
        self,
        gateway: str,
        clock: Clock,
        view: View,
        changes: Signal,
        *,
        certificate: Callable[[], str] = str,
        pace: Pace | None = None,
    ) -> None:
        self._about = {"gateway": gateway, "started": clock.text(clock.started), "buckets": BUCKETS}
        self._clock, self._view, self._changes, self._certificate = clock, view, changes, certificate
        self._pace = pace or Pace()
        self._closed = False

    def whole(self) -> bytes:
        """All of it, as one line."""
        return self._line(self._view.parts(time.monotonic()))

    def close(self) -> None:
        """End every stream."""
        self._closed = True
        self._changes.tell()

    async def watch(self, receive: Receive, send: Send) -> None:
        """Tell one reader all of it, and from then on what changes, until it goes away."""
        async with Client(receive, send) as client:
            await client.start(200, _NDJSON, is_stream=False)
            try:
                await self._tell(client)
                await client.end()
            except TimeoutError:
                log.warning("a reader of /telemetry took no line for %g s: its stream ends", self._pace.patience)

    async def _tell(self, client: Client) -> None:
        pace, clock = self._pace, time.monotonic
        sent: Parts | None = None
        known: object = None
        with_certificate = ""
        told = looked = float("-inf")
        while not self._closed:
            changed, now, certificate = self._changes.next, clock(), self._certificate()
            targets = self._view.targets()
            if targets != known or certificate != with_certificate or now >= looked + pace.tick:
                looked, known, parts = now, targets, self._view.parts(now)
                if parts != sent or certificate != with_certificate or now >= told + pace.heartbeat:
                    async with asyncio.timeout(pace.patience):
                        await client.write(self._line(parts, sent))
                    told, with_certificate = clock(), certificate
                    sent = parts if told < now + pace.slow else None
            await _wait(changed, looked + pace.tick - clock())
            await asyncio.sleep(told + pace.soonest - clock())

    def _line(self, parts: Parts, sent: Parts | None = None) -> bytes:
        """What a reader that has `sent` has to know; all of it for one that has nothing."""
        before, certificate = sent or {}, self._certificate()
        told: Mapping[str, Any] = {
            **self._about,
            "time": self._clock.text(time.monotonic()),
            **({"certificate": certificate} if certificate else {}),
            "whole": sent is None,
            "models": [orjson.Fragment(part) for name, part in parts.items() if before.get(name) != part],
            "removed": [name for name in before if name not in parts],
        }
        return orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
