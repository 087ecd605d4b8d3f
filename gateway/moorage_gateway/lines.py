"""Requests that wait for a replica of their model: one line for each model, first come, first served."""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from moorage_gateway import answers, holding
from moorage_gateway.answers import Refused
from moorage_gateway.balance import Choice
from moorage_gateway.client import Client
from moorage_gateway.figures import CLIENT_GONE, Book
from moorage_gateway.holding import Case, Verdict
from moorage_gateway.signal import Signal
from moorage_gateway.table import Key, Model, Table

_KEEP_ALIVE_SECONDS: Final = 3.0
"""How long a client that wants a stream hears nothing. What fails before the first word has its true status."""
_WORDS: Final = b"waiting for a replica"
_ROOM_SECONDS: Final = 0.05
"""How often the first in line looks whether a replica that was full has room."""
_REQUEST_BYTES: Final = 32 * 2**10
"""What one that waits costs besides its body: its connection, its task, and its head, which may be as long."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How many requests may wait, and for how many seconds.

    None of it can be 0, since only a request that waits wakes its model. Where none of any waits one may, of any size.

    Attributes:
        requests: Of one model at a time.
        seconds: One that wants its answer whole.
        stream_seconds: One that wants a stream, and hears meanwhile that it waits.
        memory: Bytes of all that wait. The second half is for the first request of each model, so that a crowd before
            one keeps no other asleep.
    """

    requests: int
    seconds: float
    stream_seconds: float
    memory: int


@dataclass(frozen=True, slots=True)
class Waiter:
    """A request that may have to wait.

    Attributes:
        client: Who asks.
        since: When it came: it may not wait for ever by waiting again.
        is_stream: Whether the client wants a stream, and so can be told that it waits.
        body_bytes: How long its body is.
    """

    client: Client
    since: float
    is_stream: bool
    body_bytes: int


@dataclass(frozen=True, slots=True)
class Seeker:
    """How a request finds its replica.

    Attributes:
        choose: Where it would go now, of a model as the table has it; None: nowhere.
        load: Of the replica of that model that has the least.
    """

    choose: Callable[[Model], Choice | None]
    load: Callable[[Model], int]


@dataclass(eq=False, slots=True)
class _Place:
    """One request's place in a line.

    Attributes:
        since: When it came.
        until: How long it waits.
        size: How many bytes it keeps.
        listener: Who hears that it waits; None: nobody can.
        heard: When that was said last.
        look: Set when there may be something for it.
    """

    since: float
    until: float
    size: int
    listener: Client | None
    heard: float
    look: asyncio.Event = field(default_factory=asyncio.Event)


_Found = tuple[Model, Choice]


class Lines:
    """All lines of a gateway. A model without one costs nothing.

    Args:
        table: Gives the current route table.
        changes: Told when the table was swapped; and by this, when a model gets its line or loses it.
        book: Counts who waits, and how long it took.
        patience: How many may wait, and how long.
        clock: Monotonic seconds.
        wall: Seconds since the epoch.
    """

    def __init__(
        self,
        table: Callable[[], Table],
        changes: Signal,
        book: Book,
        patience: Patience,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._table, self._changes, self._book, self._patience = table, changes, book, patience
        self._clock, self._wall = clock, wall
        self._lines: dict[Key, deque[_Place]] = {}
        self._open: dict[Key, float] = {}  # since when a model with a line has a replica
        self._bytes = 0
        self._closes = math.inf

    def __contains__(self, key: Key) -> bool:
        """Whether requests of this model wait: a new one has to wait behind them."""
        return key in self._lines

    def close(self, seconds: float) -> None:
        """Nobody waits longer than this from now on."""
        self._closes = self._clock() + seconds
        for line in self._lines.values():
            for place in line:
                place.until = min(place.until, self._closes)
                place.look.set()

    async def run(self) -> None:
        """Let the first of each line look whenever the table has changed, until cancelled."""
        while True:
            changed = self._changes.next
            for line in self._lines.values():
                line[0].look.set()
            await changed.wait()

    def model(self, key: Key) -> Model | None:
        """A model as the table has it now."""
        return self._table().by_key.get(key)

    async def wait(self, key: Key, seeker: Seeker, waiter: Waiter) -> tuple[Model, Choice]:
        """Wait for a replica; the model as it then is, and where its request goes.

        The request has to count as load of that replica before anything else is awaited: the next one looks then.

        Args:
            key: Whose request it is.
            seeker: How it finds its replica.
            waiter: What there is to know of it besides.

        Raises:
            Refused: there is no sense in waiting, or not any more.
        """
        place = self._place(waiter)
        verdict, found = self._look(key, place, seeker)
        if found is not None:
            return found
        self._enter(key, place)
        outcome = CLIENT_GONE
        try:
            while found is None:
                await self._pause(place, verdict)
                verdict, found = self._look(key, place, seeker)
            outcome = "served"
        except Refused as refused:
            outcome = refused.reason
            raise
        finally:
            self._leave(key, place, outcome)
        return found

    def _place(self, waiter: Waiter) -> _Place:
        now, patience = self._clock(), self._patience
        until = waiter.since + (patience.stream_seconds if waiter.is_stream else patience.seconds)
        listener = waiter.client if waiter.is_stream else None
        return _Place(now, min(until, self._closes), waiter.body_bytes + _REQUEST_BYTES, listener, now)

    def _look(self, key: Key, place: _Place, seeker: Seeker) -> tuple[Verdict, _Found | None]:
        """What becomes of the request now, and where it goes if it goes."""
        model = self.model(key)
        choice = None if model is None else seeker.choose(model)
        load = None if model is None or choice is None else seeker.load(model)
        now, line = self._clock(), self._lines.get(key, deque())
        opened = self._opened(key, now, has_replica=choice is not None)
        waits = place in line
        ahead = line.index(place) if waits else len(line)
        case = Case(
            model,
            load,
            now - opened,
            ahead,
            behind=max(0, len(line) - ahead - 1),
            limit=self._patience.requests,
            fits=waits or self._fits(key, place.size),
            left=place.until - now,
            leaving=now >= self._closes,
        )
        verdict = holding.judge(case)
        if verdict.act == "refuse":
            raise self._refused(model, verdict.reason, now - line[0].since if line else 0)
        if verdict.act == "hold" or model is None or choice is None:
            return verdict, None
        return verdict, (model, choice)

    def _fits(self, key: Key, size: int) -> bool:
        """Whether one more may wait. Where nobody waits at all it may, however large it is."""
        most = self._patience.memory // 2 if key in self._lines else self._patience.memory
        return not self._bytes or self._bytes + size <= most

    def _opened(self, key: Key, now: float, *, has_replica: bool) -> float:
        """Since when requests wait although there is a replica."""
        if has_replica and key in self._lines:
            return self._open.setdefault(key, now)
        self._open.pop(key, None)
        return now

    def _refused(self, model: Model | None, reason: str, waited: float) -> Refused:
        if model is None:
            return answers.model_gone()
        if reason == "leaving":
            return answers.not_ready(model, reason, answers.RETRY_SECONDS)
        return answers.not_ready(model, reason, holding.retry_after(model.start, self._wall(), waited))

    async def _pause(self, place: _Place, verdict: Verdict) -> None:
        """Until there may be something new for it, or its client has to hear that it still waits."""
        now = self._clock()
        wake = min(place.until, place.heard + _KEEP_ALIVE_SECONDS if place.listener is not None else math.inf)
        seconds = min(wake - now, _ROOM_SECONDS if verdict.reason == "replica_is_full" else math.inf)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await place.look.wait()
        place.look.clear()
        now = self._clock()
        if place.listener is not None and now >= place.heard + _KEEP_ALIVE_SECONDS:
            place.heard = now
            await place.listener.keep_alive(_WORDS)

    def _enter(self, key: Key, place: _Place) -> None:
        line = self._lines.setdefault(key, deque())
        line.append(place)
        self._bytes += place.size
        self._book.held[key] = len(line)
        if len(line) == 1:
            self._changes.tell()

    def _leave(self, key: Key, place: _Place, outcome: str) -> None:
        line, now = self._lines[key], self._clock()
        line.remove(place)
        self._bytes -= place.size
        self._book.waited(key, outcome).observe(now - place.since)
        self._book.demand[key] = now
        if line:
            self._book.held[key] = len(line)
            line[0].look.set()
        else:
            del self._lines[key], self._book.held[key]
            self._open.pop(key, None)
            self._changes.tell()
