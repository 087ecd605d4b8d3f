"""What happens around requests: clients that leave, a full queue, signals, and an engine that dies."""

import asyncio
import json
import os
import re
import signal
import socket

import aiohttp
import openai
import pytest


def completion(prompt, **more):
    return {"model": "echo", "prompt": prompt, **more}


async def read_some(response):
    """The first event of a stream, so that it is known to run."""
    return await response.content.readuntil(b"\n\n")


@pytest.fixture(scope="module")
def paced(serve_once):
    """Answers slowly enough that something can happen meanwhile."""
    return serve_once("--pace", "0.01")


def last_asked(server, count):
    """Ids of the sequences that were submitted last."""
    return {request.id for request in server.submitted()[-count:]}


async def test_a_client_that_leaves_a_stream_cancels_it(paced):
    async with aiohttp.ClientSession() as session:
        response = await session.post(
            paced.url + "/v1/completions", json=completion("a" * 400, stream=True, max_tokens=100, n=2)
        )
        await read_some(response)
        response.close()
        await paced.until(lambda: set(paced.cancelled()[-2:]) == last_asked(paced, 2))
    await paced.until(lambda: paced.telemetry()["running"] == 0)


def test_a_client_that_leaves_within_its_body_is_no_fault(serve):
    running = serve()
    with socket.create_connection(("127.0.0.1", running.port)) as client:
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        client.shutdown(socket.SHUT_WR)
        while client.recv(1024):
            pass
    running.end()
    assert "Traceback" not in running.output()


async def test_a_client_that_leaves_while_it_waits_cancels_it(paced):
    before = len(paced.submitted())
    async with aiohttp.ClientSession() as session:
        waiting = asyncio.ensure_future(
            session.post(paced.url + "/v1/completions", json=completion("a" * 400, max_tokens=90))
        )
        await paced.until(lambda: len(paced.submitted()) > before)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await paced.until(lambda: set(paced.cancelled()[-1:]) == last_asked(paced, 1))


async def test_a_stop_string_ends_the_sequence_in_the_engine(paced):
    _, _, answer = await paced.post("/v1/completions", completion("ab" * 100, stop="ba", max_tokens=200))
    assert answer["choices"][0] == {"index": 0, "text": "a", "logprobs": None, "finish_reason": "stop"}
    await paced.until(lambda: set(paced.cancelled()[-1:]) == last_asked(paced, 1))


async def test_a_full_queue_is_said_to_be_full(serve):
    server = serve("--pace", "0.01", max_waiting=1)
    async with aiohttp.ClientSession() as session:
        url = server.url + "/v1/completions"
        streams = [await session.post(url, json=completion("a" * 400, stream=True, max_tokens=100)) for _ in range(4)]
        fifth = asyncio.ensure_future(session.post(url, json=completion("b", stream=True)))
        await server.until(lambda: len(server.engine_log()) == 6)
        async with session.post(url, json=completion("c")) as refused:
            assert refused.status == 429
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.headers["x-moorage-load"] == "running=4,waiting=1"
            assert (await refused.json())["error"]["type"] == "rate_limit_error"
        for stream in streams:
            stream.close()
        async with await fifth as answer:
            assert answer.status == 200
            assert "[DONE]" in await answer.text()


async def test_sigterm_lets_streams_finish_and_takes_no_more(serve):
    server = serve("--pace", "0.01", "--max-running", "30")
    async with aiohttp.ClientSession() as session:
        url = server.url + "/v1/completions"
        body = completion("a" * 60, stream=True)
        asked = [asyncio.ensure_future(session.post(url, json=body | {"max_tokens": 60})) for _ in range(32)]
        await server.until(lambda: len(server.submitted()) == len(asked))
        server.process.send_signal(signal.SIGTERM)
        await server.until(lambda: not server.ready())
        async with session.post(url, json=body) as refused:
            assert refused.status == 503
            assert (await refused.json())["error"]["code"] == "Draining"
        status, content = await server.get("/readyz")
        assert (status, json.loads(content)["reason"]) == (503, "Draining")
        assert (await server.get("/healthz"))[0] == 200
        texts = [await (await stream).text() for stream in asked]
    assert all(text.endswith("data: [DONE]\n\n") for text in texts)
    assert all(text.count('"text":"a"') == 60 for text in texts)
    assert server.wait() == 0
    assert server.engine_log()[-1] == ["totals", {"submit": 32, "length": 32}]
    assert "stopping: 32 running answers finish" in server.output()
    assert (server.folder / "termination").read_text() == ""


async def test_answers_that_run_longer_than_there_is_time_end_with_what_they_have(serve):
    server = serve("--pace", "0.02", "--drain-seconds", "0.5")
    async with aiohttp.ClientSession() as session:
        body = completion("a" * 250, stream=True, max_tokens=250)
        stream = await session.post(server.url + "/v1/completions", json=body)
        whole = asyncio.ensure_future(session.post(server.url + "/v1/completions", json=body | {"stream": False}))
        await read_some(stream)
        await server.until(lambda: len(server.submitted()) == 2)
        server.process.send_signal(signal.SIGTERM)
        text = await stream.text()
        choice = (await (await whole).json())["choices"][0]
    assert text.endswith("data: [DONE]\n\n")
    assert '"finish_reason":"length"' in text
    assert '"stop_reason":"timeout"' in text
    assert (choice["finish_reason"], choice["stop_reason"]) == ("length", "timeout")
    assert choice["text"].startswith("a")
    assert server.wait() == 0


def test_sigterm_does_not_wait_for_a_body_that_does_not_come(serve):
    server = serve()
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n{"
        )
        assert client.recv(1024).startswith(b"HTTP/1.1 100")  # the request has been taken
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0


async def test_a_second_sigterm_ends_streams_with_an_error(serve):
    server = serve("--pace", "0.05")
    async with aiohttp.ClientSession() as session:
        stream = await session.post(
            server.url + "/v1/completions", json=completion("a" * 400, stream=True, max_tokens=100)
        )
        await read_some(stream)
        server.process.send_signal(signal.SIGTERM)
        await server.until(lambda: not server.ready())
        server.process.send_signal(signal.SIGTERM)
        rest = await stream.text()
    assert '"error"' in rest
    assert server.wait() == 1


async def test_a_killed_engine_is_told_to_every_client(serve):
    server = serve("--pace", "0.05")
    async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        stream = await client.completions.create(**completion("a" * 400, stream=True, max_tokens=100))
        whole = asyncio.ensure_future(client.completions.create(**completion("a" * 400, max_tokens=100)))
        await anext(aiter(stream))
        await server.until(lambda: len(server.engine_log()) == 3)
        os.kill(server.engine_pid(), signal.SIGKILL)
        with pytest.raises(openai.APIError, match="was killed by SIGKILL"):
            async for _ in stream:
                pass
        with pytest.raises(openai.InternalServerError, match="was killed by SIGKILL") as error:
            await whole
    assert error.value.code == "engine_failed"
    assert server.wait() == 1
    assert server.termination() == {"error": "The engine was killed by SIGKILL.", "reason": "EngineFailed"}


def test_an_engine_that_cannot_start_says_why(serve):
    server = serve("--fail", "InsufficientMemory")
    assert server.wait() == 1
    assert server.termination() == {
        "error": "There is too little memory for this model: it needs 2 GiB and has 1.",
        "reason": "InsufficientMemory",
    }
    assert "InsufficientMemory: There is too little memory" in server.output()


def test_the_engine_does_not_outlive_the_server_which_never_loads_torch(serve):
    server = serve()
    pid = server.engine_pid()
    server.process.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert server.output().splitlines()[-1] == "torch loaded: False"


async def test_a_reader_that_stops_reading_is_given_up_and_the_server_stays_small(serve):
    """The engine is as fast as it can be; the client's socket is never read, so 100,000 tokens would pile up."""
    server = serve("--context-length", "200000", "--tokens-per-step", "50")
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=2**12)
    body = json.dumps(completion("ab" * 20_000, stream=True, logprobs=5, max_tokens=100_000, ignore_eos=True)).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    writer.write(head + body)
    await writer.drain()
    await server.until(lambda: server.cancelled() == ["1.0"])
    assert server.telemetry()["running"] <= 1
    _, metrics = await server.get("/metrics")
    resident = re.search(rb"\nprocess_resident_memory_bytes (\S+)", metrics)
    assert float(resident[1]) < 150e6
    writer.close()
    await server.until(lambda: re.search('finished_reason="(abort|error)"', server.metrics()))
    assert reader.at_eof() is False


async def test_metrics_have_vllms_names(serve):
    server = serve()
    await server.post("/v1/completions", completion("abc"))
    _, body = await server.get("/metrics")
    text = body.decode()
    labels = '{engine="0",model_name="echo"}'
    assert f"vllm:num_requests_running{labels} 0.0" in text
    assert f"vllm:generation_tokens_total{labels} 4.0" in text
    assert f"vllm:time_to_first_token_seconds_count{labels} 1.0" in text
    assert f"vllm:request_queue_time_seconds_sum{labels} 0.25" in text
    assert f"vllm:inter_token_latency_seconds_count{labels} 3.0" in text
    assert 'vllm:request_success_total{engine="0",finished_reason="stop",model_name="echo"} 1.0' in text
    for name in ("num_requests_waiting", "kv_cache_usage_perc", "e2e_request_latency_seconds_bucket"):
        assert f"vllm:{name}" in text


async def test_telemetry_and_readiness(echo):
    status, body = await echo.get("/telemetry")
    telemetry = json.loads(body)
    assert status == 200
    assert telemetry["phase"] == "Ready"
    assert {"running", "waiting", "kvCacheUtilization", "tokensPerSecond", "gpu"} <= set(telemetry)
    assert isinstance(telemetry["gpu"]["available"], bool)


async def test_before_the_engine_is_ready(serve, tmp_path):
    start = tmp_path / "start"
    server = serve("--start-with", str(start), wait=False)
    status, body = await server.get("/readyz")
    assert (status, json.loads(body)["reason"]) == (503, "LoadingWeights")
    status, _, answer = await server.post("/v1/completions", completion("a"))
    assert (status, answer["error"]["code"]) == (503, "LoadingWeights")
    assert (await server.get("/healthz"))[0] == 200
    start.touch()
    await server.until(server.ready)
