"""What is counted of a revision, for every way in which a request can end, over real sockets."""

import asyncio

import pytest

from moorage_gateway.table import Revision

EVENT = b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
USAGE = b'data: {"choices":[],"usage":{"completion_tokens":17}}\n\n'
ERROR = b'data: {"error":{"message":"out of memory","type":"server_error"}}\n\n'


def _stream(*pieces):
    async def behave(connection, _seen):
        await connection.start_stream()
        for piece in pieces:
            await connection.chunk(piece)
        await connection.end_stream()

    return behave


def _whole(body, status="200 OK"):
    async def behave(connection, _seen):
        await connection.answer(body, status=status)

    return behave


async def _die(connection, _seen):
    connection.die()


async def _die_in_stream(connection, _seen):
    await connection.start_stream()
    await connection.chunk(EVENT)
    connection.die()


@pytest.fixture
def count(gateway, serve, make_replica, ask):
    """Ask once of a replica that behaves so; the figures."""

    async def once(behave):
        serve(await make_replica(behave))
        await ask()
        return gateway.book.of(gateway.table.full["team-a/chat"], 1)

    return once


@pytest.mark.parametrize(
    ("behave", "ended", "failed", "errors"),
    [
        (_whole(b"{}"), {"200": 1}, {}, 0),
        (_whole(b"{}", "400 Bad Request"), {"400": 1}, {}, 0),
        (_whole(b"{}", "429 Too Many Requests"), {"429": 1}, {}, 0),
        (_whole(b"{}", "500 Internal Server Error"), {"500": 1}, {"server_error": 1}, 1),
        (_whole(b"{}", "504 Gateway Timeout"), {"504": 1}, {"server_error": 1}, 1),
        (_whole(b"{}", "503 Service Unavailable"), {"503": 1}, {"unavailable": 1}, 1),
        (_stream(EVENT, DONE), {"200": 1}, {}, 0),
        (_stream(EVENT, ERROR), {"200": 1}, {"error_event": 1}, 1),
        (_stream(EVENT + ERROR + DONE), {"200": 1}, {"error_event": 1}, 1),
        (_die_in_stream, {"200": 1}, {"cut": 1}, 1),
        (_die, {"none": 2}, {"reset": 2}, 2),  # the only replica is asked again
    ],
)
async def test_every_end_is_counted_once_and_an_error_where_it_is_one(count, behave, ended, failed, errors):
    figures = await count(behave)
    assert (figures.ended, figures.failed) == (ended, failed)
    assert (figures.requests, figures.errors) == (sum(ended.values()), errors)
    assert figures.in_flight == 0


@pytest.mark.parametrize(
    ("behave", "tokens"),
    [
        (_stream(EVENT, EVENT * 3, DONE), 4),
        (_stream(EVENT, USAGE + DONE), 17),
        (_whole(b'{"usage":{"completion_tokens":12}}'), 12),
        (_whole(b"{}"), 0),
        (_die_in_stream, 1),
    ],
)
async def test_tokens_are_what_the_answer_says_else_the_events_of_its_stream(count, behave, tokens):
    assert (await count(behave)).tokens == tokens


async def test_only_streams_have_a_time_to_first_token_and_between_tokens(count):
    figures = await count(_whole(b"{}"))
    assert sum(figures.first_token.counts) == sum(figures.between_tokens.counts) == 0
    figures = await count(_stream(EVENT, EVENT * 3, DONE))
    assert sum(figures.first_token.counts) == 1
    assert sum(figures.between_tokens.counts) <= 3  # those that came with the first have no time of their own


async def test_the_time_between_tokens_is_what_the_replica_took(gateway, make_model, make_replica, ask, until):
    async def behave(connection, _seen):
        await connection.start_stream()
        await connection.chunk(EVENT)
        await until(lambda: sum(gateway.book.of(model, 1).first_token.counts) == 1)  # it counts from then on
        for _ in range(2):
            await asyncio.sleep(0.05)
            await connection.chunk(EVENT)
        await connection.end_stream()

    model = make_model(Revision(1, 100, ((await make_replica(behave)).target,)))
    gateway.serve(model)
    await ask()
    gaps = gateway.book.of(model, 1).between_tokens
    assert sum(gaps.counts) == 2
    assert gaps.total >= 0.099  # the clock may be rounded


async def test_each_revision_has_its_own_figures_and_a_retry_counts_where_it_happened(
    gateway, make_model, make_replica, ask
):
    good, bad = await make_replica(), await make_replica(_die)
    model = make_model(Revision(1, 0, (good.target,)), Revision(2, 100, (bad.target,)))
    gateway.serve(model)
    assert (await ask()).status == 200
    stable, candidate = gateway.book.of(model, 1), gateway.book.of(model, 2)
    assert (stable.requests, stable.errors) == (1, 0)
    assert (candidate.requests, candidate.errors) == (1, 1)


async def test_what_is_in_flight_is_known(gateway, make_model, make_replica, ask, until):
    hold = asyncio.Event()

    async def behave(connection, _seen):
        await hold.wait()
        await connection.answer(b"{}")

    model = make_model(Revision(1, 100, ((await make_replica(behave)).target,)))
    gateway.serve(model)
    asking = [asyncio.create_task(ask()) for _ in range(5)]
    await until(lambda: gateway.book.of(model, 1).in_flight == 5)
    hold.set()
    await asyncio.gather(*asking)
    assert gateway.book.of(model, 1).in_flight == 0
