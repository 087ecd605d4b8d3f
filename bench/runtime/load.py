"""The load: clients that each ask, read the whole stream, and ask again (a closed loop)."""

import asyncio
import itertools
import json
import statistics
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

MAX_TOKENS = 64
_PRIME_TOKENS = 4
_TOPICS = ("harbour", "lighthouse", "market", "mountain", "library", "garden", "railway", "river")
_EVENT = b"data: "
# How many windows a measurement may take at most.
_PATIENCE = 20


@dataclass(frozen=True)
class Cell:
    """What was measured of one server at one number of clients."""

    tok_s: float
    ttft_p50_ms: float
    itl_p50_ms: float
    requests: int


@dataclass
class _Record:
    """One request: when it was sent, and when each of its tokens came (seconds of the monotonic clock)."""

    sent: float
    tokens: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Target:
    """Where and for what to ask."""

    port: int
    model: str


def measure(target: Target, clients: int, warm_up: float, window: float) -> Cell:
    """Run `clients` for `warm_up` + `window` seconds; what happened in the window."""
    return asyncio.run(_measure(target, clients, warm_up, window))


def prime(target: Target) -> None:
    """Wait for a short answer: what a server builds at its first request is not measured."""
    asyncio.run(_ask(target, _Record(time.monotonic()), _TOPICS[0], _PRIME_TOKENS))


async def _measure(target: Target, clients: int, warm_up: float, window: float) -> Cell:
    records: list[_Record] = []
    tasks = [asyncio.create_task(_client(target, records, number)) for number in range(clients)]
    await _run(tasks, warm_up)
    begin = time.monotonic()
    await _run(tasks, window)
    while _gaps(records, begin, time.monotonic()) < clients and time.monotonic() - begin < _PATIENCE * window:
        # On a very busy machine: the window becomes longer instead of empty.
        await _run(tasks, window)
    end = time.monotonic()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return _cell(records, begin, end)


async def _run(tasks: Sequence[asyncio.Task[None]], seconds: float) -> None:
    """Let the clients ask for so long; a client that fails ends the measurement."""
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()


def _gaps(records: Sequence[_Record], begin: float, end: float) -> int:
    return sum(begin <= at < end for record in records for at in record.tokens[1:])


def _cell(records: Sequence[_Record], begin: float, end: float) -> Cell:
    tokens = sum(begin <= at < end for record in records for at in record.tokens)
    answered = [record for record in records if record.tokens]
    # Where no request began in the window (a slow server), those of the warm-up have to do.
    first = [record.tokens[0] - record.sent for record in answered if record.tokens[0] >= begin] or [
        record.tokens[0] - record.sent for record in answered
    ]
    gaps = [
        late - early for record in records for early, late in itertools.pairwise(record.tokens) if begin <= late < end
    ]
    if not tokens or not first or not gaps:
        raise SystemExit("a server gave no token in a whole window: nothing can be compared")
    started = sum(begin <= record.sent < end for record in records)
    return Cell(tokens / (end - begin), 1000 * statistics.median(first), 1000 * statistics.median(gaps), started)


async def _client(target: Target, records: list[_Record], number: int) -> None:
    for round_ in itertools.count(number):
        record = _Record(time.monotonic())
        records.append(record)
        await _ask(target, record, _TOPICS[round_ % len(_TOPICS)])


async def _ask(target: Target, record: _Record, topic: str, max_tokens: int = MAX_TOKENS) -> None:
    # The nonce comes first, so that no server answers from what it has computed for another prompt.
    content = f"{uuid.uuid4().hex[:12]}: tell me a long story about an old {topic} and the people who live near it."
    body = {
        "model": target.model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
    }
    data = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{target.port}\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    try:
        writer.write(head.encode() + data)
        status = await reader.readline()
        if b" 200 " not in status:
            raise SystemExit(f"a server answered {status!r}: {(await reader.read(2000))!r}")
        async for line in reader:
            if line.startswith(_EVENT) and _has_text(line):
                record.tokens.append(time.monotonic())
    finally:
        writer.close()


def _has_text(line: bytes) -> bool:
    """Whether an event brings text: one token in all servers measured here, unless the reader lags behind."""
    payload = line.removeprefix(_EVENT).strip()
    if payload == b"[DONE]":
        return False
    choices = json.loads(payload).get("choices") or [{}]
    return bool((choices[0].get("delta") or {}).get("content"))
