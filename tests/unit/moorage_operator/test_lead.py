"""What the leader reads again, and when."""

import asyncio

import pytest

from moorage_operator.cluster.client import UnreachableError
from moorage_operator.cluster.store import Store
from moorage_operator.cluster.writer import Writer
from moorage_operator.manifest import Key
from moorage_operator.shell import lead
from moorage_operator.shell.ear import LISTED
from moorage_operator.shell.health import Pulse
from moorage_operator.shell.lead import Leader
from moorage_operator.shell.metrics import Metrics
from moorage_operator.shell.queue import WorkQueue
from moorage_operator.shell.reconcile import Reconciler
from moorage_operator.shell.settings import read_settings

LEASE = {"kind": "Lease", "metadata": {"name": "moorage-operator", "namespace": "moorage-system"}}


class ApiServer:
    """Lists what it has."""

    def __init__(self, *deployments):
        self.deployments, self.version, self.lists = list(deployments), 100, 0

    async def list(self, resource, namespace, keep):
        self.lists += 1
        if self.version is None:
            raise UnreachableError("timed out")
        return (self.deployments if resource.kind == "LLMDeployment" else []), self.version


class Ear:
    """Hears nothing by itself."""

    async def listen(self):
        await asyncio.Future()


@pytest.fixture
def make_leader(make):
    def build(server, **more):
        metrics, store = Metrics(), Store()
        writer = Writer(server, store)
        settings = read_settings(["--runtime-image=x", "--workers=0"], {})
        queue = WorkQueue(asyncio.get_running_loop(), lambda: 0.0, metrics.queue)
        reconciler = Reconciler(store, writer, None, make.context, lambda: make.now)
        pulse, chance = Pulse(lambda: 0.0), lambda: 0.0
        now = lambda: make.now  # noqa: E731 - it is one
        return Leader(settings, server, store, writer, queue, reconciler, metrics, pulse, chance, now, **more)

    return build


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the program's own state, which tells nobody that it changed
            await asyncio.sleep(0.01)


async def test_what_was_deleted_before_a_watch_began_is_found_soon(make, make_leader, monkeypatch):
    """Deleted after our own list and before that of the watch: no event ever tells of it."""
    monkeypatch.setattr(lead, "LISTED_SECONDS", 0.0)
    server = ApiServer(make.deployment())
    leader = make_leader(server)
    leading = asyncio.create_task(leader.lead(Ear()))
    await until(lambda: leader.pulse.ready)
    assert leader.store.deployments() == {Key("team", "chat")}

    for number in range(2):  # at the start, and when it has to list again
        server.deployments.clear()
        server.version += 10
        leader.hear(LISTED, LEASE)
        await until(lambda: not leader.store.deployments())
        again = make.deployment()
        again["metadata"] |= {"uid": f"another {number}", "resourceVersion": str(server.version + 1)}
        server.deployments.append(again)
        leader.hear("ADDED", again)
    leading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leading


async def test_nothing_is_decided_by_what_is_older_than_the_lead(make, make_leader):
    """The leader before may have written since."""
    server = ApiServer(make.deployment())
    leader = make_leader(server, since=lambda: 120)
    leading = asyncio.create_task(leader.lead(Ear()))
    await until(lambda: server.lists)
    assert not leader.pulse.ready
    assert leader.store.deployments() == set()
    server.version = 120
    await until(lambda: leader.pulse.ready)
    leading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leading


async def test_but_not_for_ever(make, make_leader, monkeypatch):
    """Where Leases are stored apart, their versions say nothing of others'."""
    monkeypatch.setattr(lead, "LAG_SECONDS", 0.0)
    leader = make_leader(ApiServer(make.deployment()), since=lambda: 120)
    leading = asyncio.create_task(leader.lead(Ear()))
    await until(lambda: leader.pulse.ready)
    leading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leading


async def test_a_reading_that_failed_is_done_again_soon(make, make_leader, monkeypatch):
    monkeypatch.setattr(lead, "LISTED_SECONDS", 0.0)
    server = ApiServer(make.deployment())
    leader = make_leader(server)
    leading = asyncio.create_task(leader.lead(Ear()))
    await until(lambda: leader.pulse.ready)
    server.version, before = None, server.lists
    leader.hear(LISTED, LEASE)
    await until(lambda: server.lists > before)
    server.deployments.clear()
    server.version = 101
    await until(lambda: not leader.store.deployments())
    leading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leading


async def test_a_reading_that_goes_on_failing_is_tried_less_and_less_often(make, make_leader, monkeypatch):
    """As when the right to list one kind was taken away: each try reads all the others before."""
    server = ApiServer(make.deployment())
    leader = make_leader(server)
    leading = asyncio.create_task(leader.lead(Ear()))
    await until(lambda: leader.pulse.ready)
    waited, sleep = [], asyncio.sleep

    async def pass_by(seconds):
        """In virtual time, but for the test's own looking around."""
        if seconds >= 1:
            waited.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", pass_by)
    server.version = None
    leader.hear(LISTED, LEASE)
    await until(lambda: len(waited) >= 9)
    assert waited[:9] == [5, 5, 10, 20, 40, 80, 160, 300, 300]
    server.version = 101
    leader.hear(LISTED, LEASE)
    await until(lambda: leader.store._complete["LLMDeployment"] == 101)
    leading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leading
