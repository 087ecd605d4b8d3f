"""Nodes are listed when somebody waits for accelerators, and once a minute at most."""

import asyncio

import pytest

from moorage_operator.cluster.client import RejectedError
from moorage_operator.manifest import Key
from moorage_operator.shell.inventory import Inventory

CHAT, CODE = Key("team", "chat"), Key("team", "code")
GPU = "nvidia.com/gpu"


def pod(count, **labels):
    containers = [{"resources": {"limits": {GPU: str(count)}}}]
    metadata = {"name": "p", "uid": f"u{count}", "labels": labels}
    return {"metadata": metadata, "spec": {"nodeName": "n", "containers": containers}}


class ApiServer:
    """Two pages of pods on one node with 8 accelerators."""

    def __init__(self):
        self.listed, self.selection, self.fails_with = 0, None, None

    async def pages(self, resource, **selection):
        if self.fails_with is not None:
            raise self.fails_with
        if resource.kind == "Node":
            self.listed += 1
            yield [{"metadata": {"name": "n"}, "status": {"allocatable": {GPU: "8"}}}]
            return
        self.selection = selection
        yield [pod(1)]
        yield [pod(2, **{"moorage.dev/deployment": "chat"}), pod(3)]


@pytest.fixture
def server():
    return ApiServer()


@pytest.fixture
async def make_inventory(server):
    """`make_inventory(interval)` -> one that runs, and the keys that it told of news."""
    tasks = []

    def make(interval):
        told = asyncio.Queue()
        inventory = Inventory(server, told.put_nowait, interval)
        tasks.append(asyncio.create_task(inventory.run()))
        return inventory, told

    yield make
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def soon(told):
    async with asyncio.timeout(5):
        return await told.get()


async def test_who_asks_hears_of_it_and_then_knows(make_inventory, server):
    inventory, told = make_inventory(60)
    assert inventory.of(CHAT) is None
    assert inventory.of(CODE) is None
    assert {await soon(told), await soon(told)} == {CHAT, CODE}
    (node,) = inventory.of(CHAT).there
    assert (node.name, node.free[GPU]) == ("n", 2)
    assert inventory.of(CHAT).places == {"u2": "n"}, "of other people's pods nobody wants to know that"
    assert server.selection == {"fieldSelector": "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"}
    assert server.listed == 1, "one reading for all"


async def test_it_is_read_again_for_as_long_as_somebody_asks(make_inventory, server):
    inventory, told = make_inventory(0.01)
    for _ in range(3):
        inventory.of(CHAT)
        await soon(told)
    assert server.listed == 3
    async with asyncio.timeout(5):
        while inventory._known is not None:  # noqa: ASYNC110 - what is old is forgotten, which tells nobody
            await asyncio.sleep(0.005)
    assert server.listed == 3, "nobody asked, so nothing was listed"


async def test_what_may_not_be_listed_is_said_and_ends_nothing(make_inventory, server):
    inventory, told = make_inventory(0.01)
    server.fails_with = RejectedError(403, "nodes is forbidden", "GET /api/v1/nodes")
    inventory.of(CHAT)
    await soon(told)
    assert inventory.of(CHAT).unknown == "which nodes have some free could not be read; the operator's log has more"
    server.fails_with = None
    await soon(told)
    assert len(inventory.of(CHAT).there) == 1


async def test_who_asks_while_it_is_read_hears_of_it_too(make_inventory, server):
    inventory, told = make_inventory(60)
    begun, goes_on = asyncio.Event(), asyncio.Event()
    pages = server.pages

    async def slow(resource, **selection):
        begun.set()
        await goes_on.wait()
        async for page in pages(resource, **selection):
            yield page

    server.pages = slow
    assert inventory.of(CHAT) is None
    await begun.wait()
    assert inventory.of(CODE) is None
    goes_on.set()
    assert {await soon(told), await soon(told)} == {CHAT, CODE}
