"""A real gateway between real sockets: scripted replicas on one side, clients on the other."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import aiohttp
import orjson
import pytest

from moorage_gateway import table
from moorage_gateway.app import App
from moorage_gateway.clock import Clock
from moorage_gateway.draw import Draws
from moorage_gateway.figures import Book
from moorage_gateway.internal import InternalApp
from moorage_gateway.lines import Lines, Patience
from moorage_gateway.metrics import Metrics
from moorage_gateway.proxy import Proxy
from moorage_gateway.request import Limits
from moorage_gateway.scrape import Scraper
from moorage_gateway.server import internal_server, public_server
from moorage_gateway.settings import Settings
from moorage_gateway.signal import Signal
from moorage_gateway.table import Model, Revision, Target
from moorage_gateway.targets import Targets
from moorage_gateway.telemetry import Pace, Telemetry
from moorage_gateway.upstream import new_session
from moorage_gateway.view import View

DEADLINE = 20
PATIENCE = Patience(requests=100, seconds=DEADLINE, stream_seconds=DEADLINE, memory=2**30)


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in sockets and other tasks
            await asyncio.sleep(0.002)


@dataclass
class Seen:
    """One request as it arrived at a replica."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]


class Connection:
    """A replica's side of one connection, for behaviours to write to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body: bytes, *, status: str = "200 OK", headers: str = "") -> None:
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}content-length: {len(body)}\r\n\r\n"
        await self.send(head.encode() + body)

    async def start_stream(self, headers: str = "") -> None:
        head = f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{headers}transfer-encoding: chunked\r\n\r\n"
        await self.send(head.encode())

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def end_stream(self) -> None:
        await self.send(b"0\r\n\r\n")

    async def closed_by_peer(self) -> None:
        """Returns when the gateway has let go of this connection."""
        with contextlib.suppress(ConnectionError):
            assert await self.reader.read(1) == b""

    def die(self) -> None:
        self.writer.transport.abort()


@dataclass
class Reply:
    """An answer, read."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> object:
        return orjson.loads(self.body)


Behaviour = Callable[[Connection, Seen], Awaitable[None]]


async def say_ok(connection: Connection, _seen: Seen) -> None:
    await connection.answer(b'{"object":"chat.completion"}')


@dataclass
class Replica:
    """An HTTP server that does what its behaviour says, and remembers what it saw."""

    name: str = "replica"
    behave: Behaviour = say_ok
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    async def start(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()

    @property
    def target(self) -> Target:
        return Target(key=self.name, pod=self.name, address=f"127.0.0.1:{self.port}")

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while not writer.transport.is_closing():
                seen = await self._read(reader)
                self.seen.append(seen)
                await self.behave(Connection(reader, writer), seen)
        writer.transport.abort()

    async def _read(self, reader: asyncio.StreamReader) -> Seen:
        line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip("\r\n").split("\r\n")
        headers = [(name.lower(), value.strip()) for name, _, value in (each.partition(":") for each in lines)]
        length = next((int(value) for name, value in headers if name == "content-length"), 0)
        return Seen(line, headers, await reader.readexactly(length))


class Gateway:
    """The gateway's own parts, with a table that the test sets."""

    def __init__(self, limits: Limits, connect_seconds: float = 1, patience: Patience = PATIENCE) -> None:
        self.table: table.Table | None = table.EMPTY
        self.changes, self.clock = Signal(), Clock()
        self.targets, self.book, self.draws = Targets(), Book(), Draws(lambda: 0)
        self.metrics = Metrics(self.book, self.targets)
        self._limits, self._connect_seconds = limits, connect_seconds
        self.lines = Lines(lambda: self.table, self.changes, self.book, patience)
        self.leaving = False

    async def start(self) -> None:
        self.session = new_session(self._connect_seconds, idle_seconds=DEADLINE)
        self.proxy = Proxy(self.session, self.targets, self.book, self.lines, self.draws)
        self._waking = asyncio.create_task(self.lines.run())
        app = App(lambda: self.table, self.proxy, self.metrics, self._limits)
        settings = Settings(host="127.0.0.1", public_port=0, drain_seconds=1)
        self.server = public_server(app, settings, self._limits, leaving=lambda: self.leaving)
        self._serving = asyncio.create_task(self.server.serve())
        await wait_until(lambda: self.server.started)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    async def stop(self) -> None:
        """At once; how a gateway drains is tested on the whole process."""
        for listening in self.server.servers:
            listening.close()
        state = self.server.server_state
        for connection in list(state.connections):
            connection.transport.abort()
        await wait_until(lambda: not state.connections and not state.tasks)
        self._waking.cancel()
        self._serving.cancel()
        await asyncio.gather(self._serving, self._waking, return_exceptions=True)
        await self.session.close()

    def scraper(self, tick: float = 0.01) -> Scraper:
        """Who keeps the targets fresh; to be run by the test."""
        return Scraper(lambda: self.table, self.session, self.targets, self._keep, tick)

    def _keep(self, now: table.Table) -> None:
        self.book.asked(now.full.values(), self.targets.busy)
        self.book.keep(now.full.values())
        self.draws.keep(now.full.values())

    def serve(self, *models: Model) -> None:
        self.table = table.build(models)
        self.changes.tell()

    def figure(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


class Inside:
    """The internal door of a gateway whose table the test sets."""

    def __init__(self, gateway: Gateway, pace: Pace | None = None) -> None:
        self.gateway = gateway
        self.synced, self.draining, self.certificate = True, False, ""
        view = View(lambda: gateway.table, gateway.book, gateway.targets, gateway.clock)
        self.telemetry = Telemetry(
            "gateway-1", gateway.clock, view, gateway.changes, certificate=lambda: self.certificate, pace=pace
        )

    async def start(self) -> None:
        app = InternalApp(
            self.gateway.metrics, self.telemetry, synced=lambda: self.synced, draining=lambda: self.draining
        )
        self.server = internal_server(app, Settings(host="127.0.0.1", internal_port=0))
        self._serving = asyncio.create_task(self.server.serve())
        await wait_until(lambda: self.server.started)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/telemetry"

    async def stop(self) -> None:
        self.telemetry.close()
        self.server.should_exit = True
        await self._serving

    def serve(self, *models: Model) -> None:
        self.gateway.serve(*models)


def model(*revisions: Revision, name: str = "chat", namespace: str = "team-a", **fields: object) -> Model:
    values = {"created": 0, "reason": "Serving", "message": "1 of 1 replicas is ready."} | fields
    return Model(namespace=namespace, deployment=name, name=name, revisions=revisions, **values)


@pytest.fixture
def until():
    """Wait for a condition, with a deadline."""
    return wait_until


@pytest.fixture
def make_model():
    return model


@pytest.fixture
async def make_replica():
    """Start a replica: `await make_replica(behaviour)`."""
    started: list[Replica] = []

    async def start(behave: Behaviour = say_ok, name: str | None = None) -> Replica:
        replica = Replica(name or f"replica-{len(started)}", behave)
        await replica.start()
        started.append(replica)
        return replica

    yield start
    for replica in started:
        await replica.stop()


@pytest.fixture
def limits():
    return Limits(header_bytes=8192, body_bytes=100_000, seconds=DEADLINE)


@pytest.fixture
def connect_seconds():
    return 1


@pytest.fixture
def patience():
    """With what requests of models without a replica wait."""
    return PATIENCE


@pytest.fixture
async def gateway(limits, connect_seconds, patience):
    running = Gateway(limits, connect_seconds, patience)
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def make_inside(gateway):
    """Open the gateway's internal door: `await make_inside(pace)`."""
    started: list[Inside] = []

    async def start(pace: Pace) -> Inside:
        started.append(Inside(gateway, pace))
        await started[-1].start()
        return started[-1]

    yield start
    for inside in started:
        await inside.stop()


@pytest.fixture
def serve(gateway):
    """Give the gateway one model, `chat`, whose only revision has these replicas."""

    def give(*replicas: Replica) -> None:
        gateway.serve(model(Revision(1, 100, tuple(replica.target for replica in replicas))))

    return give


@pytest.fixture
async def http():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE)) as session:
        yield session


@pytest.fixture
def ask(gateway, http):
    """POST a completion for `chat`; the answer, read."""

    async def post(body: object = None, path: str = "/v1/chat/completions", **kwargs):
        body = {"model": "chat"} if body is None else body
        data = {"data": body} if isinstance(body, bytes) else {"json": body}
        async with http.post(gateway.url + path, **data, **kwargs) as answer:
            return Reply(answer.status, answer.headers, await answer.read())

    return post
