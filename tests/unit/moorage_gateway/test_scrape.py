"""Telemetry of real replicas, on a quick tick."""

import asyncio
import statistics
from itertools import pairwise

import orjson
import pytest

from moorage_gateway import table

TICK = 0.01
LABELS = {"namespace": "team-a", "deployment": "chat", "revision": "1"}


def telemetry(body):
    async def behave(connection, seen):
        assert seen.line in ("GET /telemetry HTTP/1.1", "GET /readyz HTTP/1.1")
        await connection.answer(body if "telemetry" in seen.line else b"ok")

    return behave


@pytest.fixture
async def scrape(gateway, serve):
    """Serve these replicas, and scrape until the test ends."""
    scraper = gateway.scraper(TICK)
    tasks = []

    def start(*replicas):
        serve(*replicas)
        tasks.append(asyncio.create_task(scraper.run()))

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_a_replica_reports_is_its_load(gateway, make_replica, scrape, until):
    replica = await make_replica(telemetry(b'{"running": 3, "waiting": 4, "phase": "Ready", "gpu": {}}'))
    scrape(replica)
    await until(lambda: gateway.targets.load == {replica.name: 7})


@pytest.mark.parametrize("body", [b'{"running": 0, "waiting": 0}', b"no telemetry"])
async def test_a_replica_in_use_is_asked_ten_times_as_often(gateway, make_replica, scrape, until, body):
    ticks = []  # of the one in use, when the other one was asked

    async def unused_answers(connection, _seen):
        ticks.append(len(used.seen))
        await connection.answer(body)

    used = await make_replica(telemetry(body))
    unused = await make_replica(unused_answers)
    gateway.targets.begin(used.name, now=0)
    scrape(used, unused)
    await until(lambda: len(ticks) >= 8)
    # The median: whoever did not answer in time, on a machine that stood still, is asked on the next tick again.
    assert 9 <= statistics.median(later - sooner for sooner, later in pairwise(ticks)) <= 11


@pytest.mark.parametrize(
    "body", [b"", b"no JSON", b"[]", b"{}", b'{"running": "many", "waiting": 0}', b'{"running": 1}', b"x" * 100_000]
)
async def test_no_figure_is_no_load(gateway, make_replica, scrape, until, body):
    replica = await make_replica(telemetry(body))
    scrape(replica)
    await until(lambda: len(replica.seen) >= 2)
    assert gateway.targets.load == {}
    assert not gateway.targets.ejected


async def test_a_replica_with_requests_that_came_past_the_gateway_is_asked_for(gateway, make_replica, scrape, until):
    said = {"running": 2, "waiting": 1}

    async def behave(connection, _seen):
        await connection.answer(orjson.dumps(said))

    async def again():
        seen = len(replica.seen)
        await until(lambda: len(replica.seen) >= seen + 3)
        return gateway.book.demand["team-a", "chat"]

    replica = await make_replica(behave)
    scrape(replica)
    await until(lambda: gateway.book.demand)
    first = await again()
    said.update(running=0, waiting=0)
    last = await again()
    assert gateway.clock.started < first < last
    assert await again() == last, "it is idle now"


async def test_an_error_is_no_figure(gateway, make_replica, scrape, until):
    async def behave(connection, _seen):
        await connection.answer(b'{"running": 9, "waiting": 9}', status="404 Not Found")

    replica = await make_replica(behave)
    scrape(replica)
    await until(lambda: len(replica.seen) >= 2)
    assert gateway.targets.load == {}


async def test_a_replica_that_hangs_holds_up_nobody_else(gateway, make_replica, scrape, until):
    async def hang(connection, _seen):
        await connection.closed_by_peer()

    stuck, good = await make_replica(hang), await make_replica(telemetry(b'{"running": 1, "waiting": 0}'))
    gateway.targets.begin(good.name, now=0)
    scrape(stuck, good)
    await until(lambda: len(good.seen) >= 2 and len(stuck.seen) >= 1)


async def test_a_dead_replica_is_left_out_and_comes_back_without_a_clients_request(
    gateway, make_replica, scrape, until
):
    replica, other = [await make_replica(telemetry(b'{"running": 0, "waiting": 0}')) for _ in range(2)]
    gateway.targets.begin(replica.name, now=0)
    await replica.stop()
    scrape(replica, other)
    await until(lambda: gateway.targets.ejected == {replica.name})
    assert gateway.figure("moorage_gateway_ejections_total") == 1
    seen = len(replica.seen)
    await replica.start()
    await until(lambda: not gateway.targets.ejected)
    assert replica.seen[seen].line == "GET /readyz HTTP/1.1"


async def test_a_replica_that_is_left_out_is_probed_seldom(gateway, make_replica, scrape, until):
    dead, good = [await make_replica(telemetry(b'{"running": 0, "waiting": 0}')) for _ in range(2)]
    for replica in (dead, good):
        gateway.targets.begin(replica.name, now=0)
    await dead.stop()
    tries, failed = [], gateway.targets.failed
    gateway.targets.failed = lambda key, now, connected: (tries.append(key), failed(key, now, connected=connected))[1]
    scrape(dead, good)
    await until(lambda: gateway.targets.ejected)
    seen, tried = len(good.seen), len(tries)
    await until(lambda: len(good.seen) >= seen + 40)
    assert len(tries) < tried + 10


async def test_what_left_the_table_leaves_loads_and_metrics(gateway, make_replica, scrape, until, ask):
    async def either(connection, seen):
        await connection.answer(b'{"running": 2, "waiting": 0}' if "telemetry" in seen.line else b"{}")

    replica = await make_replica(either)
    scrape(replica)
    await ask()
    assert gateway.figure("moorage_gateway_requests_total", code="200", **LABELS) == 1
    assert replica.name in gateway.targets.load
    gateway.table = table.EMPTY
    await until(lambda: gateway.targets.load == {})
    assert b"team-a" not in gateway.metrics.text()


async def test_clients_cannot_grow_the_metrics(gateway, serve, make_replica, ask):
    serve(await make_replica())
    await ask()
    await ask({"model": "made-up"})
    size = len(gateway.metrics.text().splitlines())
    for n in range(50):
        await ask({"model": f"made-up-{n}"}, headers={"x-request-id": str(n)}, path="/v1/completions")
        await ask({"model": "chat", "user": str(n)})
    assert len(gateway.metrics.text().splitlines()) == size


async def test_a_table_without_targets_is_scraped_in_peace(gateway, make_replica, scrape, serve, until):
    scrape()
    await until(lambda: gateway.table.full["team-a/chat"].revisions[0].targets == ())
    replica = await make_replica(telemetry(b'{"running": 1, "waiting": 0}'))
    serve(replica)
    await until(lambda: gateway.targets.load == {replica.name: 1})


async def test_a_new_replica_is_asked_as_soon_as_the_table_has_it(gateway, make_replica, serve, until):
    first = await make_replica(telemetry(b'{"running": 1, "waiting": 0}'))
    serve(first)
    greeting = asyncio.create_task(gateway.scraper(tick=3600).greet(gateway.changes))
    await until(lambda: gateway.changes.next._waiters)
    second = await make_replica(telemetry(b'{"running": 2, "waiting": 0}'))
    gateway.targets.begin(first.name, now=0)  # it is known already
    serve(first, second)
    await until(lambda: gateway.targets.load.get(second.name) == 2)
    assert len(first.seen) == 0
    greeting.cancel()
    await asyncio.gather(greeting, return_exceptions=True)


async def test_a_replica_that_owes_an_answer_is_asked_until_it_gives_one(gateway, make_replica, scrape, until):
    ticks = []  # of those asked on every tick, when this one was asked

    async def silent_for_a_while(connection, _seen):
        ticks.append(len(good.seen))
        if len(ticks) in {2, 3, 4, 5}:
            connection.die()
        else:
            await connection.answer(b'{"running": 3, "waiting": 0}')

    good = await make_replica(telemetry(b'{"running": 0, "waiting": 0}'))
    bad = await make_replica(silent_for_a_while)
    gateway.targets.begin(good.name, now=0)
    scrape(good, bad)
    await until(lambda: len(ticks) >= 6)
    assert ticks[5] - ticks[1] < 10
    await until(lambda: gateway.targets.load.get(bad.name) == 3)
