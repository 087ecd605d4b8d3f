"""Kopf's connections: a token that is replaced costs a request a second try, and no watch its connection."""

import asyncio
import itertools

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from moorage_operator.cluster.client import Connection
from moorage_operator.shell.ear import Ear, EarError
from moorage_operator.shell.session import renewing


@pytest.fixture
async def server():
    """Knows one token at a time, `server.good`; of a refusal the head comes at once, and the rest when it likes."""

    async def answer(request):
        server.asked.append(request.headers.get("Authorization"))
        if server.asked[-1] == f"Bearer {server.good}":
            return web.Response(text="welcome")
        refusal = web.StreamResponse(status=401)
        await refusal.prepare(request)
        await server.rest.wait()
        return refusal

    app = web.Application()
    app.router.add_get("/", answer)
    server = TestServer(app)
    server.good, server.asked, server.rest = 1, [], asyncio.Event()
    async with server:
        yield server
        server.rest.set()


@pytest.fixture
async def session(server):
    """Finds the next token each time that it reads the credentials."""
    tokens = itertools.count(1)

    def connect():
        server.read = next(tokens)
        return Connection(str(server.make_url("")), None, {"Authorization": f"Bearer {server.read}"})

    session = renewing(connect)
    assert session.server == str(server.make_url(""))
    async with session.aiohttp_session as opened:
        yield opened


async def get(server, session):
    async with session.get(server.make_url("/")) as answer:
        return answer.status, await answer.text() if answer.ok else None


async def test_a_token_that_is_replaced_is_read_once_for_all_and_nobody_notices(server, session):
    assert await get(server, session) == (200, "welcome")
    server.good = 2
    assert await asyncio.gather(*(get(server, session) for _ in range(10))) == [(200, "welcome")] * 10
    assert server.read == 2
    assert await get(server, session) == (200, "welcome")
    assert server.asked[-1] == "Bearer 2"


async def test_who_is_refused_with_the_new_token_as_well_is_told(server, session):
    server.good = 7
    assert await get(server, session) == (401, None)
    assert server.asked == ["Bearer 1", "Bearer 2"]


async def test_what_new_credentials_do_not_help_against_ends_kopf():
    """Which is started again, after a while: it would ask for another session at once, and again."""
    ear = Ear(lambda *_: None, login=lambda: "a session", namespace=None, heartbeat="moorage-operator")
    (login,) = ear.registry(lambda *_: None)._activities.get_all_handlers()
    assert await login.fn() == "a session"
    with pytest.raises(EarError, match="refuses the credentials"):
        await login.fn()
