"""Pods that come, go and fail, with requests under way: no stream is cut, no request is lost."""

import asyncio
import contextlib
import socket

import pytest

from moorage_gateway import targets
from moorage_gateway.table import Revision, Target
from moorage_gateway.targets import FAILURES_TO_EJECT

EVENT = b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
BODY = {"model": "chat", "stream": True}


class Held:
    """A replica's behaviour: a first token at once, the rest when told."""

    def __init__(self):
        self.go_on = asyncio.Event()

    async def __call__(self, connection, _seen):
        await connection.start_stream()
        await connection.chunk(EVENT)
        await self.go_on.wait()
        await connection.chunk(EVENT)
        await connection.chunk(DONE)
        await connection.end_stream()


@pytest.fixture
async def black_hole():
    """An address that neither takes a connection nor refuses it: a listener whose queue is full."""
    with socket.socket() as listening, contextlib.ExitStack() as stack:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)  # noqa: FBT003 - the standard library's signature
            filler.connect_ex(address)
        yield Target("hole", "hole", f"{address[0]}:{address[1]}")


def _posts(replica):
    return sum(seen.line.startswith("POST") for seen in replica.seen)


async def test_streams_of_pods_that_left_the_table_run_to_their_end(gateway, serve, make_replica, http, until):
    held = Held()
    leaving, staying = await make_replica(held), await make_replica()
    serve(leaving)
    url = f"{gateway.url}/v1/chat/completions"
    scraping = asyncio.create_task(gateway.scraper().run())
    async with contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(http.post(url, json=BODY)) for _ in range(50)]
        serve(staying)
        for _ in range(5):
            async with http.post(url, json=BODY) as answer:
                assert answer.status == 200
        assert (_posts(leaving), _posts(staying)) == (50, 5)
        await until(lambda: len(staying.seen) > 10)  # scrapes, each of which forgets what left the table
        held.go_on.set()
        for stream in streams:
            assert await stream.read() == EVENT * 2 + DONE
    scraping.cancel()
    await asyncio.gather(scraping, return_exceptions=True)


async def test_a_whole_revision_may_leave_while_its_streams_run(gateway, make_model, make_replica, http):
    held = Held()
    old, new = await make_replica(held), await make_replica()
    gateway.serve(make_model(Revision(1, 100, (old.target,))))
    async with http.post(f"{gateway.url}/v1/chat/completions", json=BODY) as stream:
        model = make_model(Revision(2, 100, (new.target,)))
        gateway.serve(model)
        gateway.book.keep([model])
        assert gateway.book.of(model, 1).in_flight == 1
        held.go_on.set()
        assert await stream.read() == EVENT * 2 + DONE
    gateway.book.keep([model])
    assert model.key not in gateway.book.pages


class TestAnAddressThatSwallowsConnections:
    @pytest.fixture
    def connect_seconds(self):
        return 0.2

    async def test_costs_the_dial_time_out_and_no_request(self, gateway, make_model, make_replica, ask, black_hole):
        good = await make_replica()
        gateway.serve(make_model(Revision(1, 100, (black_hole, good.target))))
        gateway.targets.report(good.name, 5)  # so that the other comes first
        assert (await ask()).status == 200
        assert gateway.book.of(gateway.table.full["team-a/chat"], 1).failed == {"connect": 1}

    async def test_is_left_out_after_some_of_them(self, gateway, make_model, make_replica, ask, black_hole):
        good = await make_replica()
        gateway.serve(make_model(Revision(1, 100, (black_hole, good.target))))
        gateway.targets.report(good.name, 5)
        for _ in range(FAILURES_TO_EJECT + 3):
            assert (await ask()).status == 200
        assert gateway.targets.ejected == {"hole"}
        assert gateway.figure("moorage_gateway_ejections_total") == 1
        assert (
            gateway.figure(
                "moorage_gateway_errors_total", namespace="team-a", deployment="chat", revision="1", kind="connect"
            )
            == FAILURES_TO_EJECT
        )


async def _unavailable(connection, seen):
    if seen.line.startswith("POST"):
        await connection.answer(b"{}", status="503 Service Unavailable")
    else:
        await connection.answer(b"{}", status="503 Not Ready" if "readyz" in seen.line else "200 OK")


async def _die_on_requests(connection, seen):
    if seen.line.startswith("POST"):
        connection.die()
    else:
        await connection.answer(b"{}", status="503 Not Ready" if "readyz" in seen.line else "200 OK")


@pytest.fixture(params=[_unavailable, _die_on_requests])
async def pair(request, make_replica, gateway, serve):
    """A replica that answers no request, which comes first, and one that does."""
    bad, good = await make_replica(request.param), await make_replica()
    serve(bad, good)
    gateway.targets.report(good.name, 50)
    return bad, good


async def test_a_replica_that_answers_no_request_is_left_out_until_it_is_ready(pair, gateway, ask, until, monkeypatch):
    monkeypatch.setattr(targets, "EJECTED_SECONDS", 0.05)
    bad, good = pair
    for _ in range(FAILURES_TO_EJECT + 5):
        assert (await ask()).status == 200
    assert (_posts(bad), _posts(good)) == (FAILURES_TO_EJECT, FAILURES_TO_EJECT + 5)
    assert gateway.targets.ejected == {bad.name}

    scraping = asyncio.create_task(gateway.scraper().run())
    await until(lambda: [seen.line for seen in bad.seen].count("GET /readyz HTTP/1.1") >= 2)
    assert gateway.targets.ejected == {bad.name}  # it says itself that it takes none

    bad.behave = good.behave
    await until(lambda: not gateway.targets.ejected)
    scraping.cancel()
    await asyncio.gather(scraping, return_exceptions=True)


async def test_a_candidate_that_fails_costs_no_request(gateway, make_model, make_replica, ask):
    stable, candidate = await make_replica(), await make_replica(_unavailable)
    gateway.serve(make_model(Revision(1, 80, (stable.target,)), Revision(2, 20, (candidate.target,))))
    assert [(await ask()).status for _ in range(100)] == [200] * 100
    assert len(stable.seen) == 100
    assert len(candidate.seen) == FAILURES_TO_EJECT  # its share goes to the other while it is left out


async def test_new_requests_are_shared_exactly(gateway, make_model, make_replica, ask):
    replicas = [await make_replica() for _ in range(3)]
    weights = (70, 25, 5)
    gateway.serve(
        make_model(
            *(
                Revision(n, weight, (replica.target,))
                for n, (weight, replica) in enumerate(zip(weights, replicas, strict=True))
            )
        )
    )
    for _ in range(200):
        await ask()
    assert [len(replica.seen) for replica in replicas] == [140, 50, 10]


@pytest.mark.parametrize("field", ["safety_identifier", "user"])
async def test_a_session_stays_with_one_revision(gateway, make_model, make_replica, ask, field):
    replicas = [await make_replica() for _ in range(2)]
    weights = (50, 50)
    gateway.serve(
        make_model(
            *(Revision(n, weight, (r.target,)) for n, (weight, r) in enumerate(zip(weights, replicas, strict=True)))
        )
    )
    for name in ("ann", "bob", "cleo", "dan", "eve", "finn"):
        before = [len(replica.seen) for replica in replicas]
        for _ in range(4):
            await ask({"model": "chat", field: name})
        assert sorted(len(r.seen) - b for r, b in zip(replicas, before, strict=True)) == [0, 4]
    assert all(replica.seen for replica in replicas)


@pytest.mark.parametrize(
    "fields", [{}, {"user": ""}, {"user": 7}, {"safety_identifier": None}, {"prompt_cache_key": "x"}]
)
async def test_what_names_no_user_takes_turns(gateway, make_model, make_replica, ask, fields):
    replicas = [await make_replica() for _ in range(2)]
    gateway.serve(make_model(*(Revision(n, 50, (replica.target,)) for n, replica in enumerate(replicas))))
    for _ in range(100):
        await ask({"model": "chat"} | fields)
    assert [len(replica.seen) for replica in replicas] == [50, 50]
