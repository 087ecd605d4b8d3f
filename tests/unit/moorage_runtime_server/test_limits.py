"""Time limits, places in the queue, choices that fail, and an engine that makes no steps."""

import json
import os
import signal

import aiohttp
import openai
import pytest

LONG = {"model": "echo", "prompt": "a" * 400, "max_tokens": 100}


@pytest.fixture
def client_of():
    def connect(server):
        return openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none", max_retries=2)

    return connect


async def read(client, *, stream, **more):
    answer = await client.completions.create(**LONG, stream=stream, **more)
    return [chunk async for chunk in answer] if stream else answer


@pytest.fixture(scope="module")
def slow(serve_once):
    return serve_once(
        "--pace", "0.02", "--request-timeout", "30", "--scheduling-policy", "Priority", "--bad-choice", "3"
    )


async def test_an_answer_that_its_time_cuts_keeps_what_it_has(slow, client_of):
    async with client_of(slow) as client:
        answer = await client.completions.create(**LONG, extra_body={"timeout": 0.5})
        stream = await client.completions.create(**LONG, stream=True, extra_body={"timeout": 0.5})
        last = [chunk async for chunk in stream][-1].choices[0]
    for choice in (answer.choices[0], last):
        assert (choice.finish_reason, choice.stop_reason) == ("length", "timeout")
    assert answer.choices[0].text == "a" * answer.usage.completion_tokens
    assert 0 < answer.usage.completion_tokens < 100
    assert 'finished_reason="timeout"' in slow.metrics()


async def test_other_ends_have_no_stop_reason(slow):
    _, _, answer = await slow.post("/v1/completions", LONG | {"max_tokens": 2})
    assert "stop_reason" not in answer["choices"][0]


@pytest.mark.parametrize("stream", [False, True])
async def test_time_that_is_over_before_the_first_token_is_504(slow, client_of, stream):
    async with aiohttp.ClientSession() as session, client_of(slow) as client:
        # They hold every place, so that nothing is left for the one that is in a hurry.
        busy = [await session.post(slow.url + "/v1/completions", json=LONG | {"stream": True}) for _ in range(4)]
        asked = len(slow.submitted())
        with pytest.raises(openai.InternalServerError, match="No token was generated within the time limit") as late:
            await client.completions.create(**LONG, stream=stream, extra_body={"timeout": 0.1})
        for response in busy:
            response.close()
    assert (late.value.status_code, late.value.code, late.value.type) == (504, "timeout", "timeout_error")
    assert len(slow.submitted()) == asked + 1  # the client was told not to repeat it by itself


async def test_the_shorter_of_the_servers_and_the_clients_limit_counts(slow):
    for asked, given in ((None, 30), (5, 5), (50, 30)):
        await slow.post("/v1/completions", LONG | {"max_tokens": 1, "timeout": asked})
        assert slow.submitted()[-1].timeout_seconds == given


async def test_priority_reaches_the_engine(slow):
    await slow.post("/v1/completions", LONG | {"max_tokens": 1, "priority": -3})
    assert slow.submitted()[-1].priority == -3


@pytest.mark.parametrize("stream", [False, True])
async def test_one_choice_that_fails_ends_the_whole_answer(slow, client_of, stream):
    async with client_of(slow) as client:
        with pytest.raises(openai.APIError, match=r"It was a bad one\."):
            await read(client, stream=stream, n=4)
    asked = [request.id for request in slow.submitted()[-4:]]
    await slow.until(lambda: set(asked[:3]) <= set(slow.cancelled()))
    await slow.until(lambda: slow.telemetry()["running"] == 0)


async def test_an_engine_that_makes_no_steps_is_told_and_recovers(serve):
    server = serve("--pace", "0.02", "--stuck-seconds", "0.3", "--lost-factor", "1000")
    async with aiohttp.ClientSession() as session:
        stream = await session.post(server.url + "/v1/completions", json=LONG | {"stream": True})
        await stream.content.readuntil(b"\n\n")
        os.kill(server.engine_pid(), signal.SIGSTOP)
        await server.until(lambda: not server.ready())
        status, body = await server.get("/readyz")
        refused, _, answer = await server.post("/v1/completions", LONG)
        os.kill(server.engine_pid(), signal.SIGCONT)
        assert (status, json.loads(body)["reason"]) == (503, "Stuck")
        assert json.loads(body)["message"].startswith("The engine has finished no step for ")
        assert (refused, answer["error"]["code"]) == (503, "Stuck")
        assert (await stream.text()).endswith("[DONE]\n\n")
    await server.until(server.ready)


async def test_an_engine_that_stays_silent_is_given_up(serve):
    server = serve("--pace", "0.02", "--stuck-seconds", "0.5")
    async with aiohttp.ClientSession() as session:
        stream = await session.post(server.url + "/v1/completions", json=LONG | {"stream": True})
        await stream.content.readuntil(b"\n\n")
        os.kill(server.engine_pid(), signal.SIGSTOP)
        assert "finished no step" in await stream.text()
    assert server.wait() == 1
    assert server.termination()["reason"] == "EngineFailed"
    assert "while it had 1 sequences to compute" in server.termination()["error"]
    with pytest.raises(ProcessLookupError):
        os.kill(server.engine_pid(), 0)


@pytest.mark.parametrize("draining", [False, True])
async def test_an_engine_that_talks_nonsense_is_given_up(serve, draining):
    server = serve("--pace", "0.05", "--nonsense-on-cancel")
    async with aiohttp.ClientSession() as session:
        url, body = server.url + "/v1/completions", LONG | {"stream": True}
        stays, leaves = [await session.post(url, json=body) for _ in range(2)]
        if draining:
            server.process.send_signal(signal.SIGTERM)
            await server.until(lambda: not server.ready())
        leaves.close()
        assert "The engine sent what is none of its messages" in await stays.text()
    assert server.wait() == 1
    assert server.termination()["error"].startswith("The engine sent what is none of its messages")


def test_an_idle_engine_is_not_stuck(serve):
    server = serve("--stuck-seconds", "0.05")
    os.kill(server.engine_pid(), signal.SIGSTOP)
    assert all(server.ready() for _ in range(20))
    os.kill(server.engine_pid(), signal.SIGCONT)
