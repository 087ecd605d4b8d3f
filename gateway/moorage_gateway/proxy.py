"""Sends a request to a replica and its answer back, untouched; to a second replica while nothing has been sent.

A failed attempt is a `_Failed` with a kind, as the metrics count them (connect, reset, timeout, unavailable), and for
`unavailable` the replica's own 502 or 503, which the client gets when there is no other replica.
"""

import asyncio
import logging
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import aiohttp
from yarl import URL

from moorage_api import names
from moorage_gateway import answers, balance
from moorage_gateway.answers import Answer, Headers, Receive, Send
from moorage_gateway.balance import Choice
from moorage_gateway.client import Client
from moorage_gateway.metrics import Metrics, Series
from moorage_gateway.request import Inbound
from moorage_gateway.table import Model
from moorage_gateway.targets import Targets

log = logging.getLogger(__name__)

_KEEP_ALIVE_SECONDS: Final = 4.0
"""Idle connections go before the replica closes them: uvicorn, which most engines use, does so after 5 s."""
_HELD_BYTES: Final = 2**20
"""An answer that is no stream is held back until it is whole, so that a replica that dies in the middle costs a retry
and not a torn answer; a longer one than this goes out as it comes."""
_UNAVAILABLE: Final = (502, 503)
_LOAD: Final = re.compile(r"running=(\d{1,9}),waiting=(\d{1,9})")
_NOT_PASSED_BACK: Final = frozenset(
    {
        b"connection",
        b"content-length",
        b"date",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-connection",
        b"server",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Hop-by-hop headers (RFC 9110, 7.6.1), and those that this server writes itself."""
_INTERNAL_PREFIX: Final = names.INTERNAL_HEADER_PREFIX.encode()
_WORDS: Final = {
    "connect": "could not be reached",
    "reset": "closed the connection before its answer was complete",
    "timeout": "sent nothing for too long",
    "unavailable": "is not available",
}


class _Failed(Exception):  # noqa: N818 - the outcome of an attempt
    def __init__(self, kind: str, answer: Answer | None = None) -> None:
        super().__init__(kind)
        self.kind = kind
        self.answer = answer


@dataclass(slots=True)
class _Exchange:
    """One request on its way: what both attempts share."""

    model: Model
    inbound: Inbound
    client: Client
    began: float


class Proxy:
    """Routes the requests of one process; `session` comes from `new_session`."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        targets: Targets,
        metrics: Metrics,
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session, self._targets, self._metrics = session, targets, metrics
        self._draw, self._clock = draw, clock

    async def serve(self, model: Model, inbound: Inbound, receive: Receive, send: Send) -> None:
        """Answer one request.

        Raises:
            Refused: the model has no target; nothing has been sent.
        """
        choice = self._choose(model)
        if choice is None:
            raise answers.not_ready(model)
        async with Client(receive, send) as client:
            exchange = _Exchange(model, inbound, client, self._clock())
            failure = await self._attempt(choice, exchange)
            if failure is not None and (second := self._second(choice, failure, exchange)) is not None:
                failure = await self._attempt(second, exchange)
            if failure is not None:
                await _give_up(exchange, failure)

    def _choose(self, model: Model, tried: frozenset[str] = frozenset()) -> Choice | None:
        targets = self._targets
        return balance.choose(
            model.revisions,
            targets.load,
            ejected=targets.ejected,
            tried=tried,
            revision_draw=self._draw(),
            tie_draw=self._draw(),
        )

    def _second(self, first: Choice, failure: _Failed, exchange: _Exchange) -> Choice | None:
        """Where to try once more: another replica; the only one again where it merely closed a kept connection."""
        if exchange.client.started or failure.kind == "timeout":
            return None
        other = self._choose(exchange.model, frozenset({first.target.key}))
        return first if other is None and failure.kind == "reset" else other

    async def _attempt(self, choice: Choice, exchange: _Exchange) -> _Failed | None:
        """Send the request to one replica and its answer to the client; the failure, if it comes to one."""
        key, series = choice.target.key, self._metrics.series(exchange.model, choice.revision)
        self._targets.begin(key, self._clock())
        series.in_flight.inc()
        try:
            await self._forward(choice, exchange, series)
        except _Failed as failure:
            self._count(failure, key, exchange, series)
            return failure
        except asyncio.CancelledError:
            self._metrics.failed(series, "client_gone")
            raise
        finally:
            series.in_flight.dec()
            self._targets.end(key, self._clock())
        series.duration.observe(self._clock() - exchange.began)
        self._metrics.ended(series, exchange.client.status)
        return None

    def _count(self, failure: _Failed, key: str, exchange: _Exchange, series: Series) -> None:
        cut = exchange.client.started
        self._metrics.failed(series, "cut" if cut else failure.kind)
        log.info("%s, %s: %s", exchange.model.full_name, key, "cut" if cut else failure.kind)
        if failure.kind == "connect" and self._targets.failed(key, self._clock()):
            self._metrics.ejections.inc()

    async def _forward(self, choice: Choice, exchange: _Exchange, series: Series) -> None:
        inbound, target = exchange.inbound, choice.target
        url = _url(target.address, inbound.path)
        try:
            async with self._session.post(
                url, data=inbound.body, headers=inbound.headers, allow_redirects=False
            ) as answer:
                self._targets.succeeded(target.key)
                self._take_load(target.key, answer)
                await self._pass_back(answer, exchange, series)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise _Failed("connect") from error
        except TimeoutError as error:
            raise _Failed("timeout") from error
        except aiohttp.ClientError as error:
            raise _Failed("reset") from error

    def _take_load(self, key: str, answer: aiohttp.ClientResponse) -> None:
        said = _LOAD.fullmatch(answer.headers.get(names.LOAD_HEADER, ""))
        if said is not None:
            self._targets.report(key, int(said[1]) + int(said[2]))

    async def _pass_back(self, answer: aiohttp.ClientResponse, exchange: _Exchange, series: Series) -> None:
        """The answer's bytes as they come: a stream at once, anything else when it is whole or too long to hold."""
        client, headers = exchange.client, _passed_back(answer)
        stream = answer.headers.get("content-type", "").startswith("text/event-stream")
        held, size = [], 0
        async for chunk in answer.content.iter_any():
            if client.started:
                await client.write(chunk)
                continue
            held.append(chunk)
            size += len(chunk)
            if stream or size > _HELD_BYTES:
                if stream:
                    series.first_token.observe(self._clock() - exchange.began)
                await client.start(answer.status, headers, is_stream=stream)
                await client.write(b"".join(held))
        if client.started:
            await client.end()
            return
        whole = Answer(answer.status, headers, b"".join(held))
        if answer.status in _UNAVAILABLE:
            raise _Failed("unavailable", whole)
        await client.whole(whole)


def new_session(connect_seconds: float, idle_seconds: float) -> aiohttp.ClientSession:
    """The client towards replicas: a kept connection for each request at once, nothing added, no redirect followed."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("accept", "accept-encoding", "user-agent"),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_seconds, sock_read=idle_seconds),
    )


async def _give_up(exchange: _Exchange, failure: _Failed) -> None:
    """The last words to a client whose request no replica answered in full."""
    client, model, what = exchange.client, exchange.model, _WORDS[failure.kind]
    if not client.started:
        await client.whole(failure.answer or answers.upstream_failed(model, what))
    elif client.is_stream:
        message = answers.upstream_message(model, what)
        await client.end_with_event(answers.error_body(message, "server_error", code="replica_failed"))
    # Otherwise the head is out and the body is torn: leaving it unfinished makes the server close the connection.


@lru_cache(maxsize=8192)
def _url(address: str, path: str) -> URL:
    return URL(f"http://{address}{path}", encoded=True)


def _passed_back(answer: aiohttp.ClientResponse) -> Headers:
    named = answer.headers.get("connection", "").lower().encode()
    dropped = _NOT_PASSED_BACK.union(token.strip() for token in named.split(b",")) if named else _NOT_PASSED_BACK
    return [
        (lower, value)
        for name, value in answer.raw_headers
        if (lower := name.lower()) not in dropped and not lower.startswith(_INTERNAL_PREFIX)
    ]
