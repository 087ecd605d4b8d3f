"""Thousands of clients of every kind: what they leave behind must be nothing."""

import asyncio
import os
import re
import signal
from pathlib import Path
from random import Random

import pytest

CLIENTS = 2000
TOGETHER = 48
# What the allocator may keep besides; 3 KiB that every client leaves behind would be more.
RSS_TOLERANCE = 4 << 20


@pytest.fixture(scope="module")
def clients(load_module):
    return load_module(Path(__file__).with_name("clients.py"))


def rss(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(server):
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


async def tasks(server):
    """How many tasks the server's event loop has."""
    before = server.output().count("tasks: ")
    server.process.send_signal(signal.SIGUSR1)
    await server.until(lambda: server.output().count("tasks: ") > before)
    return int(server.output().rpartition("tasks: ")[2].split()[0])


async def idle(server):
    await server.until(lambda: server.telemetry()["running"] == server.telemetry()["waiting"] == 0)


async def crowd(visit, random, port, number):
    room = asyncio.Semaphore(TOGETHER)

    async def enter():
        async with room:
            async with asyncio.timeout(120):
                await visit(random, port)

    await asyncio.gather(*(enter() for _ in range(number)))


def ends(server):
    """How requests ended, as the server counts them."""
    found = re.findall(r'vllm:request_success_total\{.*finished_reason="(\w+)".*\} (\S+)', server.metrics())
    return {reason: int(float(count)) for reason, count in found}


async def test_two_thousand_clients_leave_nothing_behind(serve, clients):
    server = serve("--pace", "0.001", "--max-running", "32", max_waiting=40)
    random = Random(4)
    opened = descriptors(server)
    await crowd(clients.visit, random, server.port, CLIENTS // 4)
    await idle(server)
    before = rss(server.process.pid), await tasks(server)
    await crowd(clients.visit, random, server.port, CLIENTS - CLIENTS // 4)
    await idle(server)
    submitted = len(server.submitted())
    assert submitted > CLIENTS // 2
    await server.until(lambda: sum(ends(server).values()) == submitted)
    assert ends(server).keys() <= {"stop", "length", "abort"}
    await server.until(lambda: descriptors(server) <= opened)
    assert await tasks(server) == before[1]
    assert rss(server.process.pid) - before[0] < RSS_TOLERANCE
    server.process.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    totals = server.engine_log()[-1][1]
    assert totals.pop("submit") == submitted == sum(totals.values())
    assert "Traceback" not in server.output()


async def test_a_client_that_takes_nothing_is_cut_off(serve, clients):
    """All of its answer is generated and fits what may wait for it; only its socket does not move."""
    server = serve("--stall-seconds", "0.5", "--context-length", "9000", "--tokens-per-step", "10")
    opened = descriptors(server)
    connections = [await clients.connect(server.port, 2048) for _ in range(3)]
    for _, writer in connections:
        prompt = {"model": "echo", "prompt": "a" * 1000, "stream": True}
        writer.write(clients.request(prompt | {"ignore_eos": True, "max_tokens": 4000}))
    await server.until(lambda: sum(ends(server).values()) == len(connections))
    await server.until(lambda: descriptors(server) <= opened)
    assert await tasks(server) <= 8
    for _, writer in connections:
        writer.close()
    server.process.send_signal(signal.SIGTERM)
    assert server.wait() == 0
