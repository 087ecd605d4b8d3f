"""Requests to the API server: whatever comes back, the callers get one of the errors that they know."""

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from moorage_operator.cluster.client import Client, ClusterError, Connection, NotLeadingError, UnreachableError
from moorage_operator.cluster.resources import DEPLOYMENTS, NODES

APPLY = {"metadata": {"name": "a"}}


@pytest.fixture
async def server():
    """Answers each request with the next of `server.answers`, and keeps the requests."""

    async def answer(request):
        server.asked.append(request.method)
        server.queries.append(request.query)
        return server.answers.pop(0)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    server = TestServer(app)
    server.answers, server.asked, server.queries = [], [], []
    async with server:
        yield server


@pytest.fixture
async def make_client(server):
    clients = []

    async def make(**how):
        connection = Connection(str(server.make_url("")).rstrip("/"), None)
        clients.append(Client(lambda: connection, lambda *_: None, **how))
        return await clients[-1].__aenter__()

    yield make
    for client in clients:
        await client.__aexit__(None, None, None)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>busy</html>",
        b'{"items": [',
        b"",
        b"[]",
        b'{"kind": "Status"}',
        b'{"items": [], "metadata": {"resourceVersion": ""}}',
    ],
)
async def test_an_answer_that_is_no_list_is_no_answer(server, make_client, body):
    """As a load balancer gives one while the API servers behind it come back. It must not end the operator."""
    client = await make_client()
    server.answers = [web.Response(body=body)]
    with pytest.raises(UnreachableError, match="GET /apis/moorage"):
        await client.list(DEPLOYMENTS, None)


async def test_who_may_not_write_sends_no_write_but_may_read(server, make_client):
    leads = False
    client = await make_client(may_write=lambda: leads)
    for write in (client.apply("/a", APPLY), client.create("/a", APPLY), client.replace("/a", APPLY)):
        with pytest.raises(NotLeadingError):
            await write
    with pytest.raises(ClusterError):
        await client.delete("/a", uid="1", resource_version="2")
    assert server.asked == []
    server.answers = [web.json_response({"kind": "A"}) for _ in range(2)]
    assert await client.get("/a") == {"kind": "A"}
    leads = True
    await client.apply("/a", APPLY)
    assert server.asked == ["GET", "PATCH"]


async def test_a_write_is_not_sent_again_by_who_lost_the_lead_meanwhile(server, make_client):
    """A token that ran out is read anew, which may take its time."""
    answers = iter([True, False])
    client = await make_client(may_write=lambda: next(answers))
    server.answers = [web.Response(status=401), web.json_response({})]
    with pytest.raises(NotLeadingError):
        await client.apply("/a", APPLY)
    assert server.asked == ["PATCH"]


async def test_what_is_many_comes_in_pages(server, make_client):
    client = await make_client()
    server.answers = [
        web.json_response({"items": [{"a": 1}], "metadata": {"continue": "more", "resourceVersion": "9"}}),
        web.json_response({"items": [{"a": 2}], "metadata": {"resourceVersion": "9"}}),
    ]
    assert [page async for page in client.pages(NODES)] == [[{"a": 1}], [{"a": 2}]]
    server.answers = [web.Response(body=b"[]")]
    with pytest.raises(UnreachableError, match="no list"):
        await anext(client.pages(NODES))


async def test_of_each_page_of_a_list_only_what_is_kept_stays(server, make_client):
    client = await make_client()
    server.answers = [
        web.json_response({"items": [{"a": 1}, {"a": 2}], "metadata": {"continue": "more", "resourceVersion": "9"}}),
        web.json_response({"items": [{"a": 3}], "metadata": {"continue": "", "resourceVersion": "9"}}),
    ]
    listed, version = await client.list(NODES, None, lambda one: {"kind": one["kind"], "b": one["a"]})
    assert listed == [{"kind": "Node", "b": number} for number in (1, 2, 3)]
    assert version == 9
    assert [query.get("continue") for query in server.queries] == [None, "more"]


async def test_a_list_of_nothing_has_a_version_all_the_same(server, make_client):
    client = await make_client()
    server.answers = [web.json_response({"items": [], "metadata": {"resourceVersion": "9"}})]
    assert await client.list(NODES, None) == ([], 9)
