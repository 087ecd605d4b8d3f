"""What the gateway itself answers."""

import asyncio
import random

import openai
import orjson
import pytest

from moorage_gateway.table import Revision


@pytest.fixture
def one_model(gateway, make_model, make_replica):
    async def give(**fields):
        replica = await make_replica()
        gateway.serve(make_model(Revision(1, 100, (replica.target,)), **fields))
        return replica

    return give


async def _get(http, url, method="GET", **kwargs):
    async with http.request(method, url, **kwargs) as answer:
        return answer.status, answer.headers, await answer.read()


def _error(reply):
    return orjson.loads(reply[2])["error"]


async def test_models_lists_only_what_can_serve_by_its_shortest_name(gateway, make_model, make_replica, http):
    target = (await make_replica()).target
    serving = Revision(1, 100, (target,))
    gateway.serve(
        make_model(serving, name="chat", namespace="a", created=7),
        make_model(serving, name="twice", namespace="a"),
        make_model(serving, name="twice", namespace="b"),
        make_model(Revision(1, 100, ()), name="starting", namespace="a"),
    )
    status, _, body = await _get(http, f"{gateway.url}/v1/models")
    assert status == 200
    assert orjson.loads(body) == {
        "object": "list",
        "data": [
            {"id": "chat", "object": "model", "created": 7, "owned_by": "a"},
            {"id": "a/twice", "object": "model", "created": 0, "owned_by": "a"},
            {"id": "b/twice", "object": "model", "created": 0, "owned_by": "b"},
        ],
    }


async def test_an_unknown_model_is_404_and_names_no_other(one_model, ask):
    await one_model(name="secret-project")
    reply = await ask({"model": "gpt-4"})
    assert reply.status == 404
    assert reply.json() == {
        "error": {
            "message": "The model `gpt-4` does not exist. GET /v1/models lists the models that can serve.",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }


async def test_a_plain_name_of_two_namespaces_is_404_with_the_names_that_work(gateway, make_model, make_replica, ask):
    target = (await make_replica()).target
    gateway.serve(*(make_model(Revision(1, 100, (target,)), namespace=namespace) for namespace in ("a", "b")))
    reply = await ask({"model": "chat"})
    assert (reply.status, reply.json()["error"]["code"]) == (404, "model_not_found")
    assert reply.json()["error"]["message"] == (
        "The model `chat` exists in more than one namespace: use a/chat or b/chat."
    )
    assert (await ask({"model": "b/chat"})).status == 200


async def test_a_model_that_nothing_will_start_says_why_at_once(gateway, make_model, ask):
    message = "0/3 nodes have nvidia.com/gpu free."
    gateway.serve(make_model(Revision(1, 100, ()), reason="WaitingForGPU", message=message))
    reply = await ask()
    assert reply.status == 503
    assert "retry-after" not in reply.headers  # nobody can tell when
    assert reply.json()["error"] == {
        "message": "The model `team-a/chat` is not ready: WaitingForGPU: 0/3 nodes have nvidia.com/gpu free.",
        "type": "service_unavailable",
        "param": None,
        "code": "model_not_ready",
    }


async def test_before_the_first_table_every_model_is_503(gateway, ask, http):
    gateway.table = None
    assert ((await ask()).status, (await _get(http, f"{gateway.url}/v1/models"))[0]) == (503, 503)


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/embeddings", "/metrics", "/healthz", "/v1/models/", "/v1//models"])
async def test_other_paths_are_404_in_openais_shape(gateway, http, path):
    reply = await _get(http, gateway.url + path)
    assert (reply[0], _error(reply)["code"]) == (404, "unknown_path")
    assert path in _error(reply)["message"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("PUT", "/v1/completions", "POST"),
        ("POST", "/v1/models", "GET"),
        ("DELETE", "/v1/models", "GET"),
        ("OPTIONS", "/v1/completions", "POST"),
    ],
)
async def test_the_wrong_method_is_405_and_names_the_right_one(gateway, http, method, path, allowed):
    reply = await _get(http, gateway.url + path, method)
    assert (reply[0], reply[1]["allow"], _error(reply)["code"]) == (405, allowed, "method_not_allowed")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The request's body is not valid JSON: "),
        (b'{"model": "chat"', "The request's body is not valid JSON: "),
        (b"{'model': 'chat'}", "The request's body is not valid JSON: "),
        (b'{"model": NaN}', "The request's body is not valid JSON: "),
        (b'\xff\xfe{"model": "chat"}', "The request's body is not valid JSON: "),
        (b"[" * 50_000, "The request's body is not valid JSON: "),
        (b'["chat"]', "The request's body has to be a JSON object."),
        (b"null", "The request's body has to be a JSON object."),
    ],
)
async def test_a_body_that_is_no_json_object_is_400(one_model, ask, body, message):
    replica = await one_model()
    reply = await ask(body)
    assert (reply.status, reply.json()["error"]["code"]) == (400, "invalid_json")
    assert reply.json()["error"]["message"].startswith(message)
    assert not replica.seen


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        ({}, "You must provide a model parameter.", "model_missing"),
        ({"model": None}, "You must provide a model parameter.", "model_missing"),
        ({"model": 3}, "`model` has to be a string.", "model_invalid"),
        ({"model": ["chat"]}, "`model` has to be a string.", "model_invalid"),
    ],
)
async def test_a_body_without_a_model_is_400_and_names_the_parameter(one_model, ask, body, message, code):
    await one_model()
    reply = await ask(body)
    assert reply.status == 400
    assert reply.json()["error"] == {
        "message": message,
        "type": "invalid_request_error",
        "param": "model",
        "code": code,
    }


async def test_any_bytes_as_a_body_get_an_answer_in_openais_shape(one_model, ask):
    await one_model()
    chance = random.Random(3)
    for _ in range(200):
        reply = await ask(chance.randbytes(chance.randint(0, 60)))
        assert (reply.status, set(reply.json()["error"])) == (400, {"message", "type", "param", "code"})


@pytest.mark.parametrize("name", ["chat\r\nx-evil: 1", "chat\x00", "../chat", "chat ", "é", "x" * 90_000])
async def test_odd_names_are_unknown_models(one_model, ask, name):
    replica = await one_model()
    reply = await ask({"model": name})
    assert (reply.status, reply.json()["error"]["code"]) == (404, "model_not_found")
    assert not replica.seen


async def test_what_is_refused_is_counted_by_reason(one_model, ask, gateway):
    await one_model()
    await ask({"model": "gpt-4"})
    await ask(b"{")
    assert gateway.figure("moorage_gateway_refused_total", reason="model_not_found") == 1
    assert gateway.figure("moorage_gateway_refused_total", reason="invalid_json") == 1


class TestTheOfficialClient:
    """Streams, answers and errors arrive as its own types."""

    @pytest.fixture
    async def client(self, gateway):
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
            yield client

    async def test_lists_models(self, one_model, client):
        await one_model()
        assert [model.id async for model in await client.models.list()] == ["chat"]

    async def test_raises_not_found_with_the_message(self, gateway, client):
        with pytest.raises(openai.NotFoundError, match="The model `nothing` does not exist"):
            await client.chat.completions.create(model="nothing", messages=[])
        assert gateway.figure("moorage_gateway_refused_total", reason="model_not_found") == 1

    async def test_raises_when_the_stream_is_cut(self, make_replica, serve, client):
        async def behave(connection, _seen):
            await connection.start_stream()
            await connection.chunk(b'data: {"choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n')
            await asyncio.sleep(0)
            connection.die()

        serve(await make_replica(behave))
        stream = await client.chat.completions.create(model="chat", messages=[], stream=True)
        texts = []

        async def read():
            async for chunk in stream:
                texts.append(chunk.choices[0].delta.content)  # noqa: PERF401 - what came before the error counts

        with pytest.raises(openai.APIError, match="closed the connection before its answer was complete"):
            await read()
        assert texts == ["Hel"]
