"""Gateways as the operator listens to them: over real sockets, with a server that speaks the contract."""

import asyncio
import json

import pytest
from aiohttp import web

from moorage_api import names
from moorage_operator.cluster.client import Client, Connection, RejectedError
from moorage_operator.cluster.resources import GATEWAYS
from moorage_operator.manifest import Key
from moorage_operator.shell.gateways import Gateways
from moorage_operator.shell.link import SILENCE, Pace
from moorage_operator.shell.queue import Backoff

CHAT = Key("team", "chat")
QUICK = Pace(silence=0.3, again=Backoff(shortest=0.01, longest=0.02))


async def until(condition, seconds=5):
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the program's own state, which tells nobody that it changed
            await asyncio.sleep(0.005)


class Streams:
    """Serves what it is told to, line by line, to every reader."""

    def __init__(self):
        self.readers, self.greeting, self.answer, self.requests = [], None, 200, 0
        self.runner = None

    async def open(self, port=0):
        app = web.Application()
        app.router.add_get("/{path:.*}", self._serve)
        self.runner = web.AppRunner(app, shutdown_timeout=0.01)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", port)
        await site.start()
        return self.runner.addresses[0][1]

    async def close(self):
        self.hang_up()
        await self.runner.cleanup()

    def say(self, line):
        for reader in self.readers:
            reader.put_nowait(line)

    def hang_up(self):
        for reader in self.readers:
            reader.put_nowait(None)
        self.readers = []

    async def _serve(self, request):
        self.requests += 1
        if self.answer != 200:
            return web.Response(status=self.answer)
        lines = asyncio.Queue()
        if self.greeting is not None:
            lines.put_nowait(self.greeting)
        self.readers.append(lines)
        stream = web.StreamResponse()
        await stream.prepare(request)
        while (line := await lines.get()) is not None:
            await stream.write(json.dumps(line).encode() + b"\n")
        return stream


class ApiServer:
    """Lists and watches gateway pods."""

    def __init__(self):
        self.pods, self.changed, self.version = {}, asyncio.Event(), 1

    async def list(self, resource, namespace):
        assert (resource, namespace) == (GATEWAYS, "system")
        return list(self.pods.values()), self.version

    async def watch(self, resource, namespace, version):
        while True:
            await self.changed.wait()
            self.changed.clear()
            kind, pod = self.event
            yield {"type": kind, "object": pod}

    def put(self, pod, kind="MODIFIED"):
        self.event = kind, pod
        self.pods[pod["metadata"]["name"]] = pod
        self.changed.set()


class Listener:
    def __init__(self):
        self.facts, self.figures, self.turns = [], [], []

    def told(self, news):
        self.facts += news.facts
        self.figures += news.figures

    def turned(self, *, alone):
        self.turns.append(alone)


def pod(name="gateway-a", address="127.0.0.1", **metadata):
    ready = [{"type": "Ready", "status": "True"}]
    named = {"name": name, "uid": f"uid-{name}", **metadata}
    return {"kind": "Pod", "metadata": named, "status": {"podIP": address, "conditions": ready}}


def view(*, whole=True, weight=100, requests=0, started="2026-01-01T00:00:00Z"):
    counted = {"inFlight": 0, "requests": requests, "errors": 0, "tokens": 0, "ttft": [0], "itl": [0]}
    revision = {"number": 1, "weight": weight, "targets": ["p1"], **counted}
    model = {"namespace": "team", "deployment": "chat", "revisions": [revision], "pods": []}
    about = {"gateway": "gateway-a", "started": started, "buckets": {"ttft": [], "itl": []}}
    return {**about, "whole": whole, "models": [model], "removed": []}


HEARTBEAT = {**view(whole=False), "models": []}


@pytest.fixture
async def gateway(monkeypatch):
    streams = Streams()
    streams.greeting = view()
    monkeypatch.setattr(names, "GATEWAY_INTERNAL_PORT", await streams.open())
    yield streams
    await streams.close()


@pytest.fixture
def server():
    return ApiServer()


@pytest.fixture
def listener():
    return Listener()


@pytest.fixture
async def gateways(server, listener):
    known = Gateways(server, "system", lambda: 0.5, QUICK)
    running = asyncio.create_task(known.run(listener))
    yield known
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def only(gateways):
    (found,) = gateways.of(CHAT)
    return found


async def test_what_a_gateway_says_is_known_at_once(gateways, gateway, server, listener):
    assert gateways.of(CHAT) == ()
    server.put(pod())
    await until(lambda: gateways.of(CHAT) and only(gateways).answering)
    assert only(gateways).of(1).targets == {"p1"}
    assert (listener.facts, listener.turns) == ([CHAT], [True])
    gateway.say(view(whole=False, requests=3))
    await until(lambda: only(gateways).of(1).requests == 3)
    gateway.say(view(whole=False, weight=0))
    await until(lambda: only(gateways).of(1).weight == 0)
    assert (listener.facts, listener.figures) == ([CHAT, CHAT], [CHAT])


async def test_requests_that_wait_are_told_at_once_and_what_was_said_has_a_time(gateways, gateway, server, listener):
    server.put(pod())
    await until(lambda: gateways.of(CHAT) and only(gateways).answering)
    told = {**view(whole=False), "time": "2020-01-01T00:00:10Z"}
    held = {**told["models"][0], "held": 2, "lastDemand": "2020-01-01T00:00:00Z"}
    listener.facts.clear()
    gateway.say({**told, "models": [held]})
    await until(lambda: listener.facts == [CHAT])
    found = only(gateways)
    assert (found.held, found.ready) == (2, True)
    assert 10 <= (found.heard - found.quiet_since).total_seconds() < 11
    gateway.say({**HEARTBEAT, "time": "2020-01-01T00:00:15Z"})
    await until(lambda: only(gateways).heard > found.heard)
    assert only(gateways).quiet_since == found.quiet_since


async def test_silence_is_no_answer_until_the_next_word(gateways, gateway, server, listener):
    server.put(pod())
    await until(lambda: gateways.of(CHAT) and only(gateways).answering)
    gateway.answer = 503
    await until(lambda: not only(gateways).answering)
    assert only(gateways).of(1).targets == {"p1"}, "kept, and not believed"
    gateway.answer, gateway.greeting = 200, view(started="2026-01-01T01:00:00Z")
    await until(lambda: only(gateways).answering)
    assert only(gateways).started == "2026-01-01T01:00:00Z"
    assert listener.turns == [True, True, True]


async def test_a_stream_that_ends_is_opened_again_before_anybody_notices(gateways, gateway, server, listener):
    server.put(pod())
    await until(lambda: gateways.of(CHAT) and only(gateways).answering)
    for _ in range(5):
        before = gateway.requests
        gateway.hang_up()
        await until(lambda before=before: gateway.requests > before and gateway.readers)
    gateway.say(HEARTBEAT)
    assert listener.turns == [True]


async def test_a_line_that_is_none_breaks_only_the_connection(gateways, gateway, server):
    server.put(pod())
    await until(lambda: gateways.of(CHAT) and only(gateways).answering)
    before = gateway.requests
    gateway.say({"nonsense": True})
    await until(lambda: gateway.requests > before)
    assert only(gateways).of(1).targets == {"p1"}


async def test_pods_that_are_gone_or_have_no_address_are_no_gateways(gateways, gateway, server, listener):
    server.put(pod(address=""))
    server.put(pod())
    await until(lambda: gateways.of(CHAT) and only(gateways).answering)
    server.put(pod(deletionTimestamp="2026-01-01T00:00:00Z"))
    await asyncio.sleep(0)
    assert only(gateways).answering, "its last streams are counted, too"
    gateway.answer = 503
    gateway.hang_up()
    await until(lambda: gateways.of(CHAT) == ())
    server.put(pod(), kind="DELETED")
    await until(lambda: not gateways._links)
    assert not gateways._tasks


async def test_the_first_decision_waits_for_ready_gateways_but_not_for_ever(gateway, server, listener):
    gateways = Gateways(server, "system", lambda: 0.5, QUICK)
    server.put(pod())
    running = asyncio.create_task(gateways.run(listener))
    await gateways.first_words(5)
    assert only(gateways).answering
    gateway.answer = 503
    server.put(pod("gateway-b", "127.0.0.2"))
    await until(lambda: len(gateways.of(CHAT)) == 2)
    await gateways.first_words(0.05)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def test_a_gateway_promises_a_word_every_5_s_and_may_be_late_twice():
    assert SILENCE == 15


async def test_a_watch_tells_of_events_and_of_its_end():
    streams = Streams()
    port = await streams.open()
    observed = []
    connection = Connection(f"http://127.0.0.1:{port}", None)
    async with Client(lambda: connection, lambda method, code: observed.append((method, code))) as client:
        streams.greeting = {"type": "ADDED", "object": pod()}
        events = client.watch(GATEWAYS, "system", 7)
        assert (await anext(events))["object"]["metadata"]["name"] == "gateway-a"
        streams.hang_up()
        assert [event async for event in events] == []
        streams.greeting = {"type": "ERROR", "object": {"code": 410, "message": "too old resource version"}}
        with pytest.raises(RejectedError, match="too old"):
            await anext(client.watch(GATEWAYS, "system", 7))
        streams.answer = 403
        with pytest.raises(RejectedError):
            await anext(client.watch(GATEWAYS, "system", 7))
    assert observed == [("WATCH", "200"), ("WATCH", "200"), ("WATCH", "403")]
    await streams.close()


async def test_a_gateway_that_is_ready_and_serves_no_metrics_does_not_count_for_them(gateways, gateway, server):
    gateway.greeting = view()
    server.put(pod())
    await until(lambda: gateways.of(CHAT) and only(gateways).answering)
    assert not gateways.serve


async def test_certificates_are_known_also_of_a_gateway_that_is_silent_to_us(gateways, gateway, server):
    gateway.greeting = {**view(), "certificate": "PEM"}
    server.put(pod())
    await until(lambda: gateways.serve)
    assert gateways.certificates == ("PEM",)
    gateway.answer = 503
    await until(lambda: not gateways.serve)
    assert gateways.certificates == ("PEM",), "others may hear it"
    server.put(pod(), "DELETED")
    await until(lambda: gateways.certificates == ())
