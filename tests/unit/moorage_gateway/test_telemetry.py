"""What the operator reads of a gateway, over real sockets."""

import asyncio
import socket

import orjson
import pytest

from moorage_gateway.report import Report
from moorage_gateway.table import Revision, Target
from moorage_gateway.telemetry import Pace

QUICK = Pace(tick=0.05, soonest=0.001, heartbeat=0.2, slow=0.1, patience=0.5)
NEVER = 3600


@pytest.fixture
def pace():
    return QUICK


@pytest.fixture
async def inside(make_inside, pace):
    return await make_inside(pace)


@pytest.fixture
async def watch(inside, http):
    """Open a watch; each call of what it gives reads the next line."""
    opened = []

    async def start():
        answer = await http.get(f"{inside.url}?watch")
        opened.append(answer)
        assert (answer.status, answer.headers["content-type"]) == (200, "application/x-ndjson")

        async def line():
            return orjson.loads(await answer.content.readline())

        return line

    yield start
    for answer in opened:
        answer.close()


@pytest.fixture
def chat(make_model):
    def give(*weights, pods=1, **fields):
        revisions = (
            Revision(n, weight, tuple(Target(f"uid-{n}-{p}", f"pod-{n}-{p}", "h:1") for p in range(pods)))
            for n, weight in enumerate(weights, 1)
        )
        return make_model(*revisions, **fields)

    return give


def _named(line):
    return [f"{model['namespace']}/{model['deployment']}" for model in line["models"]]


async def _next_with_models(line):
    while not (found := await line())["models"]:
        pass
    return found


async def test_the_view_has_what_is_routed_to_and_what_was_counted(inside, http, chat, gateway):
    model = chat(90, 10, 0)
    inside.serve(model)
    figures = inside.gateway.book.of(model, 2)
    figures.end(200)
    figures.end(0, "connect")
    figures.in_flight, figures.tokens = 3, 41
    figures.first_token.observe(0.02)
    figures.between_tokens.observe(100)
    gpu = {"available": False, "reason": "NVMLNotFound"}
    inside.gateway.targets.note("uid-1-0", Report({"running": 1, "kvCacheUtilization": 0.5}, gpu), now=0)
    async with http.get(inside.url) as answer:
        assert answer.headers["content-type"] == "application/json"
        view = orjson.loads(await answer.read())
    assert {name: view[name] for name in ("gateway", "started", "whole", "removed")} == {
        "gateway": "gateway-1",
        "started": gateway.clock.text(gateway.clock.started),
        "whole": True,
        "removed": [],
    }
    (found,) = view["models"]
    assert (found["namespace"], found["deployment"]) == ("team-a", "chat")
    assert [(r["number"], r["weight"], r["targets"]) for r in found["revisions"]] == [
        (1, 90, ["uid-1-0"]),
        (2, 10, ["uid-2-0"]),
        (3, 0, ["uid-3-0"]),  # no weight yet, but it could be given some
    ]
    second = found["revisions"][1]
    assert {name: second[name] for name in ("inFlight", "requests", "errors", "tokens")} == {
        "inFlight": 3,
        "requests": 2,
        "errors": 1,
        "tokens": 41,
    }
    for kind, bucket in (("ttft", view["buckets"]["ttft"].index(0.02)), ("itl", -1)):
        assert second[kind][bucket] == sum(second[kind]) == 1
        assert len(second[kind]) == len(view["buckets"][kind]) + 1


async def test_pods_say_what_they_do_while_that_is_known(inside, make_replica, make_model, http, until):
    telemetry = {"running": 2, "waiting": 1, "kvCacheUtilization": 0.25, "tokensPerSecond": 99.5, "phase": "Ready"}
    gpu = {"available": True, "devices": [{"index": 0, "utilization": 87, "memoryUsedMiB": 70_000}]}

    async def behave(connection, _seen):
        await connection.answer(orjson.dumps(telemetry | {"gpu": gpu}))

    replica, silent = await make_replica(behave), Target("silent", "silent", "127.0.0.1:1")
    inside.serve(make_model(Revision(1, 100, (replica.target, silent))))
    scraping = asyncio.create_task(inside.gateway.scraper().run())
    await until(lambda: inside.gateway.targets.load == {replica.name: 3})
    async with http.get(inside.url) as answer:
        view = orjson.loads(await answer.read())
    scraping.cancel()
    await asyncio.gather(scraping, return_exceptions=True)
    del telemetry["phase"]
    (pod,) = view["models"][0]["pods"]
    assert view["started"] < pod.pop("at") <= view["time"]
    assert pod == {"uid": replica.name, **telemetry, "gpu": gpu}


async def test_before_the_routes_are_read_nothing_is_told_as_nothing(inside, http):
    inside.synced = False
    for query in ("", "?watch"):
        async with http.get(inside.url + query) as answer:
            assert (answer.status, await answer.text()) == (503, "the routes have not been read yet\n")


async def test_an_ejected_target_is_none(inside, http, chat, gateway):
    inside.serve(chat(100, pods=2))
    for _ in range(3):
        gateway.targets.failed("uid-1-1", now=0, connected=False)
    async with http.get(inside.url) as answer:
        assert orjson.loads(await answer.read())["models"][0]["revisions"][0]["targets"] == ["uid-1-0"]


async def test_what_left_the_table_is_told_of_while_requests_of_it_run(inside, http, chat, gateway):
    model = chat(50, 50)
    gateway.book.of(model, 1).in_flight = 2
    inside.serve(chat(100))
    gateway.book.of(model, 2).in_flight = 1

    async def told():
        async with http.get(inside.url) as answer:
            view = orjson.loads(await answer.read())
            return [(r["number"], r["weight"], r["targets"], r["inFlight"]) for r in view["models"][0]["revisions"]]

    assert await told() == [(1, 100, ["uid-1-0"], 2), (2, 0, [], 1)]
    inside.serve()
    assert await told() == [(1, 0, [], 2), (2, 0, [], 1)]


class TestWatch:
    """With a pace at which only changed targets and heartbeats make lines."""

    @pytest.fixture
    def pace(self):
        return Pace(tick=NEVER, soonest=0.001, heartbeat=NEVER)

    async def test_begins_with_a_whole_view_and_goes_on_with_what_changed(self, inside, watch, chat):
        inside.serve(chat(100), chat(100, name="code"))
        line = await watch()
        first = await line()
        assert (first["whole"], _named(first), first["removed"]) == (True, ["team-a/chat", "team-a/code"], [])

        inside.serve(chat(90, 10), chat(100, name="code"))
        second = await line()
        assert (second["whole"], _named(second), second["removed"]) == (False, ["team-a/chat"], [])
        assert [r["weight"] for r in second["models"][0]["revisions"]] == [90, 10]

        inside.serve(chat(90, 10), chat(100, name="code", pods=2))
        assert _named(await line()) == ["team-a/code"]

        inside.serve(chat(90, 10))
        last = await line()
        assert (last["whole"], _named(last), last["removed"]) == (False, [], ["team-a/code"])
        assert last.keys() == first.keys()

    async def test_a_table_with_the_same_targets_makes_no_line(self, inside, watch, chat, until):
        model = chat(100)
        inside.serve(model)
        line = await watch()
        await line()
        inside.gateway.book.of(model, 1).end(200)  # is told later, on the tick
        inside.serve(chat(100, message="Other words."))
        await until(lambda: len(inside.gateway.changes.next._waiters) == 2)  # it has looked, and waits; as lines do
        inside.serve(chat(100, pods=2))
        assert len((await line())["models"][0]["revisions"][0]["targets"]) == 2

    async def test_every_reader_gets_every_change(self, inside, watch, chat):
        lines = [await watch() for _ in range(3)]
        assert [(await line())["models"] for line in lines] == [[], [], []]
        inside.serve(chat(100))
        assert [_named(await line()) for line in lines] == [["team-a/chat"]] * 3

    async def test_who_comes_back_gets_a_whole_view(self, inside, watch, chat):
        inside.serve(chat(100))
        assert _named(await (await watch())()) == ["team-a/chat"]
        inside.serve(chat(50, 50))
        line = await watch()
        again = await line()
        assert (again["whole"], len(again["models"][0]["revisions"])) == (True, 2)

    async def test_ends_when_the_gateway_ends(self, inside, http):
        async with http.get(f"{inside.url}?watch") as answer:
            assert await answer.content.readline()
            inside.telemetry.close()
            assert await answer.content.read() == b""


async def test_figures_that_change_are_told_on_the_next_tick(inside, watch, chat):
    model = chat(100)
    inside.serve(model)
    line = await watch()
    await line()
    inside.gateway.book.of(model, 1).end(200)
    found = await _next_with_models(line)
    assert (found["whole"], found["models"][0]["revisions"][0]["requests"]) == (False, 1)


async def test_a_line_comes_at_least_with_every_heartbeat(inside, watch, chat):
    inside.serve(chat(100))
    line = await watch()
    await line()
    for _ in range(3):
        empty = await line()
        assert (empty["whole"], empty["models"], empty["removed"]) == (False, [], [])


async def test_a_storm_of_changes_is_told_in_few_lines(make_inside, http, chat):
    inside = await make_inside(Pace(soonest=0.2))
    async with http.get(f"{inside.url}?watch") as answer:
        await answer.content.readline()
        for n in range(1, 300):
            inside.serve(chat(100, pods=n))
            await asyncio.sleep(0)
        lines = 0
        told = 0
        while told < 299:
            view = orjson.loads(await answer.content.readline())
            told = len(view["models"][0]["revisions"][0]["targets"])
            lines += 1
    assert lines <= 3


async def test_a_reader_that_leaves_costs_nothing(inside, http, until):
    async with http.get(f"{inside.url}?watch") as answer:
        await answer.content.readline()
        assert len(inside.server.server_state.tasks) == 1
        answer.close()
    await until(lambda: not inside.server.server_state.tasks)


class TestAReaderThatTakesNothing:
    """Its window stays shut for as long as the test wants."""

    @pytest.fixture
    def pace(self):
        return Pace(tick=0.02, soonest=0.001, heartbeat=NEVER, slow=0.1, patience=2)

    @pytest.fixture
    def big(self, make_model):
        def give(weight):
            targets = tuple(Target(f"{pod:0200}", "pod", "h:1") for pod in range(200))
            return [make_model(Revision(1, weight, targets), name=f"m{n}") for n in range(100)]

        return give

    @pytest.fixture
    async def reader(self, inside, big, until):
        """Its socket, when the gateway's side of the connection is full."""
        inside.serve(*big(1))
        with socket.socket() as opened:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            opened.setblocking(False)  # noqa: FBT003 - the standard library's signature
            loop = asyncio.get_running_loop()
            await loop.sock_connect(opened, ("127.0.0.1", inside.port))
            await loop.sock_sendall(opened, b"GET /telemetry?watch HTTP/1.1\r\nhost: x\r\n\r\n")
            await until(lambda: any(_buffered(inside)) and _buffered(inside)[0] > 2**20)
            yield opened

    async def test_gets_a_whole_view_again_and_costs_no_queue(self, inside, reader, big, until):
        full = _buffered(inside)
        for weight in range(2, 30):
            inside.serve(*big(weight))
            await asyncio.sleep(0.01)  # time that passes is what this is about
        assert _buffered(inside) == full
        lines, writer = await asyncio.open_connection(sock=reader.dup())
        await lines.readuntil(b"\r\n\r\n")
        wholes, weight = 0, 0
        while weight != 29:
            view = orjson.loads(await _chunk(lines))
            wholes += view["whole"]
            weight = view["models"][0]["revisions"][0]["weight"]
        assert wholes == 2
        writer.transport.abort()

    @pytest.mark.usefixtures("reader")
    async def test_loses_its_stream_in_the_end(self, inside, big, until, caplog):
        inside.serve(*big(2))
        await until(lambda: not inside.server.server_state.tasks)
        assert "took no line for 2 s" in caplog.text


def _buffered(inside):
    return [connection.transport.get_write_buffer_size() for connection in inside.server.server_state.connections]


async def _chunk(reader):
    """A line is one chunk."""
    size = int(await reader.readuntil(b"\r\n"), 16)
    return (await reader.readexactly(size + 2))[:-2]
