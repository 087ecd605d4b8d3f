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
from typing import Final

import aiohttp
import orjson

from moorage_api import names
from moorage_gateway import answers, balance
from moorage_gateway.answers import Answer, Receive, Refused, Send
from moorage_gateway.balance import Choice
from moorage_gateway.client import Client
from moorage_gateway.draw import Draws
from moorage_gateway.figures import CLIENT_GONE, Book, Figures
from moorage_gateway.lines import Lines, Seeker, Waiter
from moorage_gateway.request import Inbound
from moorage_gateway.stream import EventCount, told_tokens
from moorage_gateway.table import Model, serving
from moorage_gateway.targets import Targets
from moorage_gateway.upstream import passed_back, url

log = logging.getLogger(__name__)

_HELD_BYTES: Final = 2**20
"""An answer that is no stream is held back until it is whole, so that a replica that dies in the middle costs a retry
and not a torn answer; a longer one than this goes out as it comes. It cannot go out as the stream that a client which
was kept alive expects."""
_UNAVAILABLE: Final = (502, 503)
_CLIENT_ERROR: Final = 400
_SERVER_ERROR: Final = 500
_LOAD: Final = re.compile(r"running=(\d{1,9}),waiting=(\d{1,9})")
_WORDS: Final = {
    "connect": "could not be reached",
    "reset": "closed the connection before its answer was complete",
    "timeout": "sent nothing for too long",
    "unavailable": "is not available",
    "no_stream": "answered without a stream",
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
    draw: float
    began: float


@dataclass(slots=True)
class _Attempt:
    """One try of it: where it went, who counts it, when it began, what the replica answered (0: nothing yet)."""

    choice: Choice
    figures: Figures
    began: float
    status: int = 0
    fault: str = ""


class Proxy:
    """Routes the requests of one process; `session` comes from `upstream.new_session`."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        targets: Targets,
        book: Book,
        lines: Lines,
        draws: Draws,
        *,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session, self._targets, self._book, self._lines, self._draws = session, targets, book, lines, draws
        self._chance, self._clock = chance, clock

    async def serve(self, model: Model, inbound: Inbound, receive: Receive, send: Send) -> None:
        """Answer one request.

        Raises:
            Refused: the model has no target, and waiting for one is no use, or was none.
        """
        draw = self._draws.next(model, inbound.session)
        choice = None if model.key in self._lines else self._choose(model, draw)
        async with Client(receive, send) as client:
            exchange = _Exchange(model, inbound, client, draw, self._clock())
            try:
                await self._serve(choice, exchange)
            except asyncio.CancelledError:
                if client.gone:
                    raise
                await _cut_short(client)

    async def _serve(self, choice: Choice | None, exchange: _Exchange) -> None:
        if choice is None:
            choice = await self._wait(exchange)
        failure = await self._attempt(choice, exchange)
        if failure is not None and (second := self._second(choice, failure, exchange)) is not None:
            failure = await self._attempt(second, exchange)
        if failure is not None and self._fell_asleep(failure, exchange):
            failure = await self._attempt(await self._wait(exchange), exchange)
        if failure is not None:
            await _give_up(exchange, failure)

    async def _wait(self, exchange: _Exchange) -> Choice:
        """Wait for a replica, of the model as it is by then.

        Raises:
            Refused: as `serve` does. A client that was kept alive has been told already.
        """
        client, inbound = exchange.client, exchange.inbound
        seeker = Seeker(lambda model: self._choose(model, exchange.draw), self._least_load)
        waiter = Waiter(client, exchange.began, inbound.is_stream, len(inbound.body))
        try:
            exchange.model, choice = await self._lines.wait(exchange.model.key, seeker, waiter)
        except Refused as refused:
            if client.started:
                refused.told = True
                await client.end_with_event(refused.answer.body)
            raise
        return choice

    def _fell_asleep(self, failure: _Failed, exchange: _Exchange) -> bool:
        """Whether the last replica turned the request away because it was going at that moment."""
        if exchange.client.answered or failure.kind == "timeout":
            return False
        now = self._lines.model(exchange.model.key)
        return now is not None and now.start.possible and self._choose(now, exchange.draw) is None

    def _least_load(self, model: Model) -> int:
        """Of any replica of it: a full one of one revision keeps nobody from those of another."""
        load, ejected = self._targets.load, self._targets.ejected
        found = serving(model.revisions, ejected) or serving(model.revisions)
        return min(load.get(each.key, 0) for _, targets in found for each in targets)

    def _choose(self, model: Model, draw: float, tried: frozenset[str] = frozenset()) -> Choice | None:
        targets = self._targets
        return balance.choose(
            model.revisions,
            targets.load,
            ejected=targets.ejected,
            tried=tried,
            revision_draw=draw,
            tie_draw=self._chance(),
        )

    def _second(self, first: Choice, failure: _Failed, exchange: _Exchange) -> Choice | None:
        """Where to try once more: another replica; the only one again where it merely closed a kept connection."""
        if exchange.client.answered or failure.kind == "timeout":
            return None
        other = self._choose(exchange.model, exchange.draw, frozenset({first.target.key}))
        return first if other is None and failure.kind == "reset" else other

    async def _attempt(self, choice: Choice, exchange: _Exchange) -> _Failed | None:
        """Send the request to one replica and its answer to the client; the failure, if it comes to one."""
        key, figures = choice.target.key, self._book.of(exchange.model, choice.revision)
        attempt = _Attempt(choice, figures, self._clock())
        self._targets.begin(key, attempt.began)
        figures.in_flight += 1
        try:
            await self._forward(attempt, exchange)
        except _Failed as failure:
            attempt.fault = "cut" if exchange.client.answered else failure.kind
            self._note_fault(attempt, failure, exchange)
            return failure
        except asyncio.CancelledError:
            attempt.fault = CLIENT_GONE
            raise
        finally:
            now = self._clock()
            figures.in_flight -= 1
            figures.end(attempt.status, attempt.fault)
            self._book.demand[exchange.model.key] = now
            self._targets.end(key, now)
        figures.duration.observe(now - attempt.began)
        return None

    def _note_fault(self, attempt: _Attempt, failure: _Failed, exchange: _Exchange) -> None:
        target = attempt.choice.target
        log.info("%s, %s: %s", exchange.model.full_name, target.pod, attempt.fault)
        if self._targets.failed(target.key, self._clock(), connected=failure.kind != "connect"):
            log.warning("%s (%s) failed too often in a row: left out until it is ready", target.pod, target.address)

    async def _forward(self, attempt: _Attempt, exchange: _Exchange) -> None:
        inbound, target = exchange.inbound, attempt.choice.target
        try:
            async with self._session.post(
                url(target.address, inbound.path), data=inbound.body, headers=inbound.headers, allow_redirects=False
            ) as answer:
                attempt.status = answer.status
                self._take_load(target.key, answer)
                await self._pass_back(answer, attempt, exchange)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise _Failed("connect") from error
        except TimeoutError as error:
            raise _Failed("timeout") from error
        except aiohttp.ClientError as error:
            raise _Failed("reset") from error
        self._targets.succeeded(target.key)

    def _take_load(self, key: str, answer: aiohttp.ClientResponse) -> None:
        said = _LOAD.fullmatch(answer.headers.get(names.LOAD_HEADER, ""))
        if said is not None:
            self._targets.report(key, int(said[1]) + int(said[2]))

    async def _pass_back(self, answer: aiohttp.ClientResponse, attempt: _Attempt, exchange: _Exchange) -> None:
        """The answer's bytes as they come: a stream at once, anything else when it is whole or too long to hold."""
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            await self._pass_stream(answer, attempt, exchange)
        else:
            await _pass_whole(answer, attempt, exchange)
        if answer.status >= _SERVER_ERROR and not attempt.fault:
            attempt.fault = "server_error"

    async def _pass_stream(self, answer: aiohttp.ClientResponse, attempt: _Attempt, exchange: _Exchange) -> None:
        client, figures, clock = exchange.client, attempt.figures, self._clock
        pieces = answer.content.iter_any()
        first = await anext(pieces, b"")
        if not first:
            await _send_whole(Answer(answer.status, passed_back(answer), b""), attempt, exchange)
            return
        now = clock()
        figures.first_token.observe(now - attempt.began)
        count = EventCount(figures.between_tokens, first, now)
        try:
            await client.start(answer.status, passed_back(answer), is_stream=True)
            await client.write(first)
            async for piece in pieces:
                count.take(piece, clock())
                await client.write(piece)
        finally:
            figures.tokens += count.tokens
        await client.end()
        if count.ended_in_error:
            attempt.fault = "error_event"


async def _pass_whole(answer: aiohttp.ClientResponse, attempt: _Attempt, exchange: _Exchange) -> None:
    client, headers = exchange.client, passed_back(answer)
    held, size = [], 0
    async for piece in answer.content.iter_any():
        if client.answered:
            await client.write(piece)
            continue
        held.append(piece)
        size += len(piece)
        if size > _HELD_BYTES:
            if client.started:
                await _refuse_whole(attempt, exchange)
                return
            await client.start(answer.status, headers, is_stream=False)
            await client.write(b"".join(held))
    if client.answered:
        await client.end()
    else:
        await _send_whole(Answer(answer.status, headers, b"".join(held)), attempt, exchange)


async def _send_whole(whole: Answer, attempt: _Attempt, exchange: _Exchange) -> None:
    if whole.status in _UNAVAILABLE:
        raise _Failed("unavailable", whole)
    attempt.figures.tokens += told_tokens(whole.body) or 0
    if exchange.client.started and not _is_error(whole):
        await _refuse_whole(attempt, exchange)
    else:
        await exchange.client.whole(whole)


async def _refuse_whole(attempt: _Attempt, exchange: _Exchange) -> None:
    """The client was kept alive, and expects events: those of an answer, or one with an error."""
    attempt.fault = "no_stream"
    await exchange.client.whole(answers.upstream_failed(exchange.model, _WORDS[attempt.fault]))


def _is_error(whole: Answer) -> bool:
    if whole.status < _CLIENT_ERROR:
        return False
    try:
        said = orjson.loads(whole.body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(said, dict) and "error" in said


async def _cut_short(client: Client) -> None:
    """The server's time to drain is over. Whoever has nothing yet, or a stream, hears why it ends."""
    answer = answers.cut_short()
    if not client.started:
        await client.whole(answer)
    elif client.is_stream:
        await client.end_with_event(answer.body)


async def _give_up(exchange: _Exchange, failure: _Failed) -> None:
    """The last words to a client whose request no replica answered in full."""
    client, model, what = exchange.client, exchange.model, _WORDS[failure.kind]
    if not client.answered:
        await client.whole(failure.answer or answers.upstream_failed(model, what))
    elif client.is_stream:
        message = answers.upstream_message(model, what)
        await client.end_with_event(answers.error_body(message, "server_error", code="replica_failed"))
    # Otherwise the head is out and the body is torn: leaving it unfinished makes the server close the connection.
