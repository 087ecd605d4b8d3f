"""What the other gateways tell, over real sockets."""

import asyncio

import pytest

from moorage_gateway import measure, peers, telemetry
from moorage_gateway.peers import Peers
from moorage_gateway.table import Revision, Target
from moorage_gateway.telemetry import Pace

KEY = ("team-a", "chat")


def pod(name, address="127.0.0.1", *, ready=True, phase="Running", **meta):
    conditions = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": str(ready)}]
    status = {"phase": phase, "podIP": address, "conditions": conditions}
    return {"metadata": {"uid": f"uid-{name}", "name": name, **meta}, "status": status}


@pytest.fixture
async def other(make_inside):
    """Another gateway, whose telemetry is read."""
    return await make_inside(Pace(tick=0.05, soonest=0.001, heartbeat=0.1))


@pytest.fixture
async def listen(gateway, other):
    """Listen to those pods: `listen(pod, …)`. This gateway's own is called `own`."""
    tasks = []

    def start(*pods):
        found = Peers(gateway.session, "own", other.port)
        found.replace(pods)
        tasks.append(asyncio.create_task(found.run()))
        return found

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def chat(other, make_model):
    """`chat` as the other gateway has it, with so many requests that wait and in flight."""

    def give(held, in_flight):
        model = make_model(Revision(1, 100, (Target("uid", "pod", "127.0.0.1:1"),)))
        other.gateway.book.held = {KEY: held} if held else {}
        other.gateway.book.of(model, 1).in_flight = in_flight
        other.serve(model)

    return give


async def test_it_follows_what_another_gateway_tells(listen, chat, other, until):
    chat(2, 5)
    found = listen(pod("own"), pod("other"))
    await until(lambda: found.told(KEY) == [measure.Told(2, {1: 5}, {})])
    assert not found.silent(KEY)
    chat(0, 7)
    await until(lambda: found.told(KEY) == [measure.Told(0, {1: 7}, {})])
    assert found.told(("team-b", "chat")) == []
    other.gateway.book.pages.clear()
    other.serve()
    await until(lambda: found.told(KEY) == [])


async def test_a_gateway_does_not_listen_to_itself(listen, chat, other, until):
    chat(1, 0)
    found = listen(pod("own"))
    found.put(pod("own"))
    assert not found.silent(KEY)
    found.put(pod("other"))
    await until(lambda: len(found.told(KEY)) == 1)
    assert len(other.server.server_state.tasks) == 1


async def test_a_pod_that_goes_is_forgotten(listen, chat, other, until):
    chat(1, 0)
    found = listen(pod("other"))
    await until(lambda: found.told(KEY))
    found.remove(pod("other"))
    await until(lambda: not found.told(KEY) and not other.server.server_state.tasks)


async def test_while_a_ready_gateway_is_silent_not_all_is_known(listen, chat, until):
    chat(1, 0)
    found = listen(pod("other"), pod("silent", "127.77.0.1"))
    await until(lambda: found.told(KEY))
    assert found.silent(KEY) == [None]
    found.put(pod("silent", "127.77.0.1", ready=False))  # no client is sent to it
    assert not found.silent(KEY)
    found.put(pod("silent", "127.77.0.1", deletionTimestamp="2026-11-22T08:00:00Z"))
    assert not found.silent(KEY)


async def test_what_a_gateway_said_is_not_believed_for_ever(listen, chat, other, until, monkeypatch):
    monkeypatch.setattr(peers, "_SILENCE_SECONDS", 0.5)
    chat(1, 0)
    found = listen(pod("other"))
    await until(lambda: found.told(KEY))
    monkeypatch.setattr(telemetry.Telemetry, "_line", lambda *_: b"")  # it has its connection, and says nothing
    await until(lambda: not found.told(KEY))
    assert found.silent(KEY) == [measure.Told(1, {1: 0}, {})]


async def test_what_a_gateway_said_is_forgotten_soon_after_its_connection_has_ended(
    listen, chat, other, until, monkeypatch
):
    """It has crashed: the requests that waited there have gone, and come again elsewhere."""
    monkeypatch.setattr(peers, "_SILENCE_SECONDS", 3600)
    monkeypatch.setattr(peers, "_LOST_SECONDS", 0.1)
    chat(1, 0)
    found = listen(pod("other"))
    await until(lambda: found.told(KEY))
    await other.stop()
    await until(lambda: not found.told(KEY))
    assert found.silent(KEY) == [measure.Told(1, {1: 0}, {})]
    await other.start()  # at another port: it does not answer here


async def test_before_the_pods_are_listed_nobody_knows_who_there_is(gateway):
    assert Peers(gateway.session, "own").silent(KEY) == [None]


async def test_a_gateway_that_comes_back_is_heard_again(listen, chat, other, until, monkeypatch):
    monkeypatch.setattr(peers, "_AGAIN_SECONDS", 0.01)
    chat(1, 0)
    other.synced = False  # 503, until it has read its routes
    found = listen(pod("other"))
    await until(lambda: other.server.server_state.total_requests > 3)
    assert found.silent(KEY) == [None]
    other.synced = True
    await until(lambda: found.told(KEY))


async def test_nonsense_is_not_taken_in(listen, chat, until, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(peers, "_LOST_SECONDS", 3600)
    chat(1, 0)
    found = listen(pod("other"))
    await until(lambda: found.told(KEY))
    monkeypatch.setattr(telemetry.Telemetry, "_line", lambda *_: b'{"models": [{"namespace": 1}]}\n')
    await until(lambda: "gateway other: 'deployment'" in caplog.text)
    assert found.told(KEY) == [measure.Told(1, {1: 0}, {})]


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (pod("a", "10.0.0.1"), peers.Pod("uid-a", "a", "10.0.0.1:8081", ready=True)),
        (pod("a", "fd00::1"), peers.Pod("uid-a", "a", "[fd00::1]:8081", ready=True)),
        (pod("a", ready=False), peers.Pod("uid-a", "a", "127.0.0.1:8081", ready=False)),
        (pod("a", ""), None),
        (pod("a", phase="Failed"), None),
        ({"metadata": {"uid": "u", "name": "a"}}, None),
    ],
)
def test_pods(raw, found):
    assert peers.pod(raw, 8081) == found
