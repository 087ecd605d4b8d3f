"""Requests for models without a replica, over real sockets."""

import asyncio
import random

import openai
import orjson
import pytest

from moorage_gateway import holding, lines
from moorage_gateway.draw import sticky
from moorage_gateway.lines import Patience
from moorage_gateway.table import Revision, Start
from moorage_gateway.telemetry import Pace

STARTING = Start(possible=True, seconds=40)
KEY = ("team-a", "chat")
EVENT = b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n'
STREAM = {"model": "chat", "stream": True}


async def stream(connection, _seen):
    await connection.start_stream(headers="x-other: y\r\n")
    await connection.chunk(EVENT)
    await connection.chunk(b"data: [DONE]\n\n")
    await connection.end_stream()


def after(done):
    """What a replica does that answers everybody at the same time."""

    async def answer(connection, _seen):
        await done.wait()
        await connection.answer(b"{}")

    return answer


class Chat:
    """The model `chat`, with replicas and without."""

    def __init__(self, gateway, make_model, until):
        self.gateway, self.make, self._until = gateway, make_model, until

    def sleeps(self, start=STARTING, **fields):
        """No replica; a request starts one, or one is on its way."""
        self.gateway.serve(self.make(Revision(1, 100, ()), start=start, **fields))

    def serves(self, *replicas, **fields):
        self.gateway.serve(self.make(Revision(1, 100, tuple(replica.target for replica in replicas)), **fields))

    async def held(self, count):
        """Wait until so many requests wait."""
        await self._until(lambda: self.gateway.book.held.get(KEY, 0) == count)

    def waited(self, outcome):
        """How many have waited, to such an end."""
        labels = {"namespace": "team-a", "deployment": "chat", "outcome": outcome}
        return self.gateway.figure("moorage_gateway_held_seconds_count", **labels)


@pytest.fixture
def chat(gateway, make_model, until):
    return Chat(gateway, make_model, until)


@pytest.fixture
def orderly(until, monkeypatch):
    """Waits for room in a replica for as long as that takes; gives `until`."""
    monkeypatch.setattr(holding, "CROWD_SECONDS", 3600)
    return until


@pytest.mark.parametrize("body", [{"model": "chat"}, STREAM])
async def test_a_request_waits_for_the_first_replica(gateway, chat, make_replica, ask, body):
    chat.sleeps()
    asking = asyncio.create_task(ask(body))
    await chat.held(1)
    replica = await make_replica(stream)
    chat.serves(replica)
    answer = await asking
    assert (answer.status, answer.body) == (200, EVENT + b"data: [DONE]\n\n")
    assert answer.headers["x-other"] == "y"  # nothing was sent before it
    assert gateway.book.held == {}
    assert chat.waited("served") == 1
    assert gateway.figure("moorage_gateway_held_requests", namespace="team-a", deployment="chat") == 0


async def test_who_came_first_goes_first_and_no_more_than_the_replica_computes(
    gateway, chat, make_replica, ask, orderly
):
    turns = asyncio.Semaphore(0)

    async def slow(connection, _seen):
        await turns.acquire()
        await connection.answer(b"{}")

    chat.sleeps()
    asking = []
    for n in range(6):
        asking.append(asyncio.create_task(ask({"model": "chat", "user": "one", "n": n})))
        await chat.held(n + 1)
    replica = await make_replica(slow)
    chat.serves(replica, full_at=2)
    await orderly(lambda: len(replica.seen) == 2)
    assert gateway.book.held[KEY] == 4
    later = asyncio.create_task(ask({"model": "chat", "user": "one", "n": 6}))  # a newcomer stands at the end
    await chat.held(5)
    for served in range(3, 8):
        turns.release()
        await orderly(lambda served=served: len(replica.seen) == served)
        assert gateway.targets.load[replica.name] <= 2
    turns.release()
    turns.release()
    assert [answer.status for answer in await asyncio.gather(*asking, later)] == [200] * 7
    assert [orjson.loads(seen.body)["n"] for seen in replica.seen] == list(range(7))


async def test_a_second_replica_takes_what_the_first_has_no_room_for(chat, make_replica, ask, orderly):
    done = asyncio.Event()
    chat.sleeps()
    asking = [asyncio.create_task(ask()) for _ in range(8)]
    await chat.held(8)
    first, second = await make_replica(after(done)), await make_replica(after(done))
    chat.serves(first, full_at=4)
    await chat.held(4)
    chat.serves(first, second, full_at=4)
    await chat.held(0)
    await orderly(lambda: len(second.seen) == 4)
    assert len(first.seen) == 4
    done.set()
    assert {answer.status for answer in await asyncio.gather(*asking)} == {200}


async def test_a_full_replica_of_one_revision_keeps_nobody_from_those_of_another(chat, make_replica, ask, orderly):
    """A session belongs to the canary, whose only replica is full; it waits there, and the others go where they go."""
    done = asyncio.Event()
    chat.sleeps()
    stable, canary = await make_replica(after(done)), await make_replica(after(done))
    users = [str(n) for n in range(20) if sticky(KEY, str(n)) < 0.5]
    asking = [asyncio.create_task(ask({"model": "chat", "user": user})) for user in users]
    await chat.held(len(users))
    chat.gateway.targets.report(canary.name, 99)
    revisions = Revision(1, 50, (stable.target,)), Revision(2, 50, (canary.target,))
    chat.gateway.serve(chat.make(*revisions, full_at=64))
    await orderly(lambda: len(canary.seen) == len(users))
    done.set()
    assert {answer.status for answer in await asyncio.gather(*asking)} == {200}


async def test_a_replica_that_stays_full_is_waited_for_for_a_moment_only(chat, make_replica, ask, until, monkeypatch):
    monkeypatch.setattr(holding, "CROWD_SECONDS", 0.1)
    done = asyncio.Event()
    chat.sleeps()
    asking = [asyncio.create_task(ask()) for _ in range(5)]
    await chat.held(5)
    replica = await make_replica(after(done))
    chat.serves(replica, full_at=1)
    await until(lambda: len(replica.seen) == 5)
    done.set()
    assert {answer.status for answer in await asyncio.gather(*asking)} == {200}


async def test_a_model_that_comes_and_goes_loses_nobody_and_forgets_nobody(gateway, chat, make_replica, ask, until):
    chance = random.Random(5)
    replicas = [await make_replica(stream) for _ in range(2)]
    chat.sleeps()
    asking = [asyncio.create_task(ask(STREAM if n % 2 else {"model": "chat"})) for n in range(90)]
    leaving = chance.sample(asking, 20)
    for step in range(40):
        chat.serves(*replicas[: chance.randint(1, 2)], full_at=chance.randint(1, 3))
        await asyncio.sleep(0)
        chat.sleeps()
        if step % 2:
            leaving[step // 2].cancel()
        await asyncio.sleep(0.002)
    chat.serves(*replicas)
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert [answer.status for answer in answers if not isinstance(answer, asyncio.CancelledError)].count(200) >= 70
    assert all(isinstance(answer, asyncio.CancelledError) or answer.status == 200 for answer in answers)
    await until(lambda: not gateway.server.server_state.tasks and not any(gateway.targets.load.values()))
    assert (gateway.book.held, KEY in gateway.lines) == ({}, False)
    assert all(figures.in_flight == 0 for figures in gateway.book.pages[KEY].values())


class TestOfTwoAtATime:
    """The bound."""

    @pytest.fixture
    def patience(self):
        return Patience(requests=2, seconds=20, stream_seconds=20, memory=2**30)

    async def test_one_too_many_is_refused_with_what_is_left_of_the_start(self, chat, make_replica, ask):
        chat.sleeps()
        asking = [asyncio.create_task(ask()) for _ in range(2)]
        await chat.held(2)
        refused = await ask(STREAM)
        assert (refused.status, refused.headers["retry-after"]) == (503, "40")
        assert refused.json()["error"]["code"] == "model_not_ready"
        assert refused.json()["error"]["message"].endswith(" As many requests wait for it already as may.")
        chat.serves(await make_replica())
        assert [answer.status for answer in await asyncio.gather(*asking)] == [200, 200]

    async def test_nobody_is_refused_while_there_is_a_replica(self, chat, make_replica, ask, orderly):
        done = asyncio.Event()
        chat.sleeps()
        asking = [asyncio.create_task(ask()) for _ in range(2)]
        await chat.held(2)
        replica = await make_replica(after(done))
        chat.serves(replica, full_at=1)
        await chat.held(1)
        asking += [asyncio.create_task(ask()) for _ in range(4)]
        await orderly(lambda: len(replica.seen) == 4)  # and two wait
        done.set()
        assert [answer.status for answer in await asyncio.gather(*asking)] == [200] * 6

    async def test_other_models_have_lines_of_their_own(self, gateway, chat, make_model, make_replica, ask):
        serving = await make_replica()
        asleep = make_model(Revision(1, 100, ()), start=STARTING)
        code = make_model(Revision(1, 100, (serving.target,)), name="code")
        gateway.serve(asleep, code)
        asking = [asyncio.create_task(ask()) for _ in range(2)]
        await chat.held(2)
        assert (await ask({"model": "code"})).status == 200
        gateway.serve(make_model(Revision(1, 100, (serving.target,))), code)
        assert [answer.status for answer in await asyncio.gather(*asking)] == [200, 200]


class TestOfBodies:
    """The bound over all models: a request that waits keeps its body."""

    @pytest.fixture
    def patience(self):
        return Patience(requests=100, seconds=20, stream_seconds=20, memory=600_000)

    async def test_a_crowd_fills_half_of_the_memory_and_the_rest_is_for_other_models(
        self, gateway, chat, make_replica, ask, until
    ):
        asleep = [chat.make(Revision(1, 100, ()), start=STARTING, name=name) for name in ("chat", "code", "smol")]
        gateway.serve(*asleep)
        asking = []
        for n in range(2):  # of 90,000 bytes, and what each costs besides
            asking.append(asyncio.create_task(ask({"model": "chat", "prompt": "x" * 90_000})))
            await chat.held(n + 1)
        refused = await ask({"model": "chat", "prompt": "x" * 90_000})
        assert (refused.status, refused.headers["retry-after"]) == (503, "40")
        assert refused.json()["error"]["code"] == "model_not_ready"
        assert "all the memory that they may" in refused.json()["error"]["message"]
        assert gateway.figure("moorage_gateway_refused_total", reason="held_too_much") == 1
        asking += [
            asyncio.create_task(ask({"model": name, "prompt": "x" * 90_000})) for name in ("code", "smol")
        ]  # which are woken all the same
        await until(lambda: len(gateway.book.held) == 3)
        replica = await make_replica()
        gateway.serve(*(chat.make(Revision(1, 100, (replica.target,)), name=each.name) for each in asleep))
        assert [answer.status for answer in await asyncio.gather(*asking)] == [200] * 4
        gateway.serve(*asleep)  # what has gone left its room
        again = asyncio.create_task(ask({"model": "chat", "prompt": "x" * 90_000}))
        await chat.held(1)
        again.cancel()


class TestOfOneThatIsTooLarge:
    """A bound that is below the size of a request."""

    @pytest.fixture
    def patience(self):
        return Patience(requests=100, seconds=20, stream_seconds=20, memory=1)

    async def test_one_request_may_always_wait_and_wakes_its_model(self, chat, make_replica, ask):
        chat.sleeps()
        asking = asyncio.create_task(ask())
        await chat.held(1)
        assert (await ask()).status == 503
        chat.serves(await make_replica())
        assert (await asking).status == 200


class TestWithoutPatience:
    """The deadline."""

    @pytest.fixture
    def patience(self):
        return Patience(requests=10, seconds=0.05, stream_seconds=0.3, memory=2**30)

    async def test_a_whole_answer_is_refused_when_it_has_waited_long_enough(self, gateway, chat, ask):
        chat.sleeps(Start(possible=True, seconds=90))
        refused = await ask()
        assert (refused.status, refused.headers["retry-after"]) == (503, "90")
        assert refused.json()["error"]["message"] == (
            "The model `team-a/chat` is not ready: Serving: 1 of 1 replicas is ready. "
            "The request has waited for it for as long as it may."
        )
        assert gateway.figure("moorage_gateway_refused_total", reason="held_too_long") == 1
        assert chat.waited("held_too_long") == 1

    async def test_a_stream_that_was_kept_alive_ends_with_the_refusal_as_an_event(
        self, gateway, chat, ask, monkeypatch
    ):
        monkeypatch.setattr(lines, "_KEEP_ALIVE_SECONDS", 0.02)
        chat.sleeps()
        answer = await ask(STREAM)
        assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        *comments, last, end = answer.body.split(b"\n\n")
        assert set(comments) == {b": waiting for a replica"}
        assert orjson.loads(last.removeprefix(b"data: "))["error"]["code"] == "model_not_ready"
        assert end == b""
        assert gateway.figure("moorage_gateway_refused_total", reason="held_too_long") == 1

    async def test_who_has_to_wait_again_waits_no_longer_in_all(self, chat, make_replica, ask, gateway):
        """Past a minute the load balancer in front answers in our place."""

        async def drain(connection, _seen):
            await asyncio.sleep(0.06)  # longer than it may wait, though it was not held meanwhile
            chat.sleeps()
            await connection.answer(b"{}", status="503 Service Unavailable")

        chat.serves(await make_replica(drain))
        assert (await ask()).status == 503
        assert gateway.figure("moorage_gateway_refused_total", reason="held_too_long") == 1
        assert chat.waited("held_too_long") == 0

    async def test_a_stream_that_nothing_was_said_to_has_its_true_status(self, chat, ask):
        chat.sleeps()
        assert (await ask(STREAM)).status == 503


@pytest.fixture
def talkative(monkeypatch):
    monkeypatch.setattr(lines, "_KEEP_ALIVE_SECONDS", 0.01)


@pytest.fixture
async def comforted(gateway, chat, http, talkative):
    """A stream whose client has been told that it waits."""
    chat.sleeps()
    async with http.post(f"{gateway.url}/v1/chat/completions", json=STREAM) as answer:
        assert await answer.content.readuntil(b"\n\n") == b": waiting for a replica\n\n"
        await chat.held(1)
        yield answer


def _said(body):
    """The events of a stream without the comments."""
    return [part for part in body.split(b"\n\n") if part and not part.startswith(b":")]


async def test_a_stream_that_was_kept_alive_goes_on_with_the_answer(comforted, chat, make_replica):
    chat.serves(await make_replica(stream))
    assert _said(await comforted.read()) == [EVENT.rstrip(), b"data: [DONE]"]


async def test_a_refusal_by_the_replica_reaches_a_stream_that_was_kept_alive_as_an_event(comforted, chat, make_replica):
    async def behave(connection, _seen):
        await connection.answer(b'{"error": {\n"code": "invalid"}}', status="400 Bad Request")

    chat.serves(await make_replica(behave))
    assert _said(await comforted.read()) == [b'data: {"error": {\ndata: "code": "invalid"}}']


@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("200 OK", b'{"object":"chat.completion"}'),
        ("200 OK", b"x" * 3 * 2**20),
        ("404 Not Found", b"<html>"),
        ("404 Not Found", b"[]"),
        ("400 Bad Request", b"x" * 3 * 2**20),
    ],
)
async def test_what_is_neither_a_stream_nor_an_error_ends_a_stream_that_was_kept_alive_with_an_error(
    comforted, chat, make_replica, status, body
):
    async def behave(connection, _seen):
        await connection.answer(body, status=status)

    chat.serves(await make_replica(behave), await make_replica(behave))
    (event,) = _said(await comforted.read())
    error = orjson.loads(event.removeprefix(b"data: "))["error"]
    assert error["code"] == "replica_failed"
    assert error["message"].endswith(" answered without a stream.")
    labels = {"namespace": "team-a", "deployment": "chat", "revision": "1"}
    assert chat.gateway.figure("moorage_gateway_errors_total", kind="no_stream", **labels) == 1


async def test_a_stream_that_was_kept_alive_is_still_tried_on_a_second_replica(comforted, chat, make_replica, gateway):
    async def die(connection, _seen):
        connection.die()

    bad, good = await make_replica(die), await make_replica(stream)
    gateway.targets.report(good.name, 5)
    chat.serves(bad, good)
    assert _said(await comforted.read()) == [EVENT.rstrip(), b"data: [DONE]"]
    assert (len(bad.seen), len(good.seen)) == (1, 1)


async def test_a_stream_that_was_kept_alive_ends_with_an_event_where_no_replica_answers(comforted, chat, make_replica):
    async def die(connection, _seen):
        connection.die()

    chat.serves(await make_replica(die), await make_replica(die))
    (event,) = _said(await comforted.read())
    assert orjson.loads(event.removeprefix(b"data: "))["error"]["code"] == "replica_failed"


async def test_the_official_client_reads_a_stream_that_was_kept_alive(gateway, chat, make_replica, talkative):
    chat.sleeps()
    replica = await make_replica(stream)
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        asking = asyncio.create_task(client.chat.completions.create(model="chat", messages=[], stream=True))
        answer = await asking  # it has its head while the request waits
        await chat.held(1)
        chat.serves(replica)
        assert [chunk.choices[0].delta.content async for chunk in answer] == ["hi"]


async def test_a_client_that_goes_away_leaves_its_place(gateway, chat, make_replica, ask):
    chat.sleeps()
    _, writer = await gateway.connect()
    body = b'{"model":"chat"}'
    writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    await chat.held(1)
    asking = asyncio.create_task(ask())
    await chat.held(2)
    writer.transport.abort()
    await chat.held(1)
    assert chat.waited("client_gone") == 1
    replica = await make_replica()
    chat.serves(replica)
    assert (await asking).status == 200
    assert len(replica.seen) == 1


@pytest.mark.parametrize(
    ("start", "refusal"),
    [(Start(), (503, "not_ready")), (None, (404, "model_not_found"))],
)
async def test_all_are_refused_at_once_when_waiting_is_no_use_any_more(gateway, chat, ask, start, refusal):
    chat.sleeps()
    asking = [asyncio.create_task(ask()) for _ in range(5)]
    await chat.held(5)
    if start is None:
        gateway.serve()
    else:
        chat.sleeps(start, reason="ImagePullFailed", message="No such image.")
    answers = await asyncio.gather(*asking)
    assert {answer.status for answer in answers} == {refusal[0]}
    assert "retry-after" not in answers[0].headers
    assert gateway.figure("moorage_gateway_refused_total", reason=refusal[1]) == 5


async def test_what_nothing_will_start_is_refused_at_once_and_never_held(gateway, chat, ask):
    chat.sleeps(Start())
    assert (await ask()).status == 503
    assert chat.waited("not_ready") == 0


async def test_a_request_that_a_replica_turns_away_as_it_goes_to_sleep_wakes_the_model(chat, make_replica, ask):
    async def drain(connection, _seen):
        chat.sleeps()  # the table has heard of it meanwhile
        await connection.answer(b"{}", status="503 Service Unavailable")

    leaving = await make_replica(drain)
    chat.serves(leaving)
    asking = asyncio.create_task(ask())
    await chat.held(1)
    chat.serves(await make_replica())
    assert (await asking).status == 200


async def test_models_that_sleep_are_listed(gateway, make_model, http):
    gateway.serve(
        make_model(Revision(1, 100, ()), name="sleeps", start=Start(possible=True, proven=True)),
        make_model(Revision(1, 100, ()), name="never-served", start=STARTING),
        make_model(Revision(1, 100, ()), name="stopped", start=Start(proven=True)),
    )
    async with http.get(f"{gateway.url}/v1/models") as answer:
        assert [each["id"] for each in (await answer.json())["data"]] == ["sleeps"]


async def test_before_a_gateway_goes_it_refuses_what_it_could_not_serve_in_time(gateway, chat, ask):
    chat.sleeps()
    asking = [asyncio.create_task(ask(body)) for body in ({"model": "chat"}, STREAM)]
    await chat.held(2)
    gateway.lines.close(0.05)
    answers = await asyncio.gather(*asking)
    assert [(answer.status, answer.headers["retry-after"]) for answer in answers] == [(503, "1")] * 2
    assert answers[0].json()["error"]["message"].endswith(" This gateway is about to go: another one waits on.")
    assert chat.waited("leaving") == 2
    assert (await ask()).status == 503


class TestTheView:
    """What the operator hears of it."""

    @pytest.fixture
    async def line(self, make_inside, http):
        """Reads the next line; only what is told at once makes any."""
        inside = await make_inside(Pace(tick=3600, soonest=0.001, heartbeat=3600))
        async with http.get(f"{inside.url}?watch") as answer:

            async def read():
                return orjson.loads(await answer.content.readline())

            yield read

    async def test_it_is_told_at_once_that_requests_wait_and_that_none_does(
        self, gateway, chat, line, make_replica, ask
    ):
        chat.sleeps()
        before = (await self._model(line, held=False))["lastDemand"]
        assert before == gateway.clock.text(gateway.clock.started)
        asking = [asyncio.create_task(ask()) for _ in range(3)]
        await self._model(line, held=True)
        await chat.held(3)
        chat.serves(await make_replica())
        await asyncio.gather(*asking)
        after = await self._model(line, held=False)
        assert after["lastDemand"] > before

    @staticmethod
    async def _model(line, held):
        while True:
            for model in (await line())["models"]:
                if (model["held"] > 0) is held:
                    return model

    async def test_the_last_demand_is_the_end_of_the_last_request(self, serve, make_replica, make_inside, ask, http):
        serve(await make_replica())
        inside = await make_inside(Pace())
        await ask()
        async with http.get(inside.url) as answer:
            view = orjson.loads(await answer.read())
        (model,) = view["models"]
        assert view["started"] < model["lastDemand"] <= view["time"]
        assert model["lastDemand"] == inside.gateway.clock.text(inside.gateway.book.demand[KEY])
