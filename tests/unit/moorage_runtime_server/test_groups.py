"""A server whose engine is one rank of several: what the others' ends do to it."""

import json
import os
import signal

import aiohttp

LONG = {"model": "echo", "prompt": "a" * 400, "stream": True}


async def test_a_pod_that_is_to_end_ends_its_group_after_what_runs(serve):
    """The leader hears of it, and is perhaps told to end itself by then, which is no second signal."""
    server = serve("--pace", "0.05")
    async with aiohttp.ClientSession() as session:
        stream = await session.post(server.url + "/v1/completions", json=LONG | {"max_tokens": 60})
        await stream.content.readuntil(b"\n\n")
        os.kill(server.engine_pid(), signal.SIGUSR1)
        await server.until(lambda: not server.ready())
        status, body = await server.get("/readyz")
        server.process.send_signal(signal.SIGTERM)
        text = await stream.text()
    assert (status, json.loads(body)["reason"]) == (503, "Draining")
    assert text.endswith("data: [DONE]\n\n")
    assert server.wait() == 0
    assert server.engine_log()[-1] == ["totals", {"submit": 1, "length": 1}]
    assert "rank 1 was told to stop, and with it all ranks of its group" in server.output()


async def test_a_rank_that_has_joined_tells_its_leader_that_it_is_to_end_and_goes_on_until_that_has(serve):
    server = serve("--joins", "--rank", "1")
    server.process.send_signal(signal.SIGTERM)
    await server.until(lambda: ["leave"] in server.engine_log())
    status, body = await server.get("/readyz")
    assert (status, json.loads(body)["reason"]) == (503, "Draining")
    assert server.process.poll() is None
    os.kill(server.engine_pid(), signal.SIGUSR1)
    assert server.wait() == 0
    assert (server.folder / "termination").read_text() == ""


async def test_a_second_signal_does_not_wait_for_the_leader(serve):
    server = serve("--joins", "--rank", "1")
    server.process.send_signal(signal.SIGTERM)
    await server.until(lambda: ["leave"] in server.engine_log())
    server.process.send_signal(signal.SIGTERM)
    assert server.wait() == 1


async def test_a_group_that_lost_a_rank_is_over_before_its_engine_has_ended(serve):
    """The engine waits for processes that do not end; nobody else does."""
    server = serve("--pace", "0.05")
    async with aiohttp.ClientSession() as session:
        stream = await session.post(server.url + "/v1/completions", json=LONG | {"max_tokens": 100})
        await stream.content.readuntil(b"\n\n")
        os.kill(server.engine_pid(), signal.SIGUSR2)
        rest = await stream.text()
    assert "rank 2 is gone" in rest
    assert "[DONE]" not in rest
    assert server.wait() == 1
    assert server.termination() == {"error": "rank 2 is gone", "reason": "EngineFailed"}
