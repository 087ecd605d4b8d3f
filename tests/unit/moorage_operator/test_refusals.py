"""Why pods of a group are missing, in the words of their controller."""

import asyncio

import pytest

from moorage_operator.cluster.client import RejectedError
from moorage_operator.cluster.store import Store
from moorage_operator.manifest import Key
from moorage_operator.shell.refusals import Refusals, incomplete

KEY = Key("team", "chat")
ENOUGH = 3
QUOTA = 'create Pod chat-r1-0-1 in StatefulSet chat-r1-0 failed error: pods "chat-r1-0-1" is forbidden: exceeded quota'


class Events:
    """The API server's events, by the uid of what they are about; `asked` is each question."""

    def __init__(self):
        self.asked, self.by_uid, self.error = [], {}, None
        self.then, self.again = {}, asyncio.Event()

    async def get(self, path, fieldSelector):  # noqa: N803 - the API server's name
        self.asked.append((path, fieldSelector))
        if len(self.asked) >= ENOUGH:
            self.again.set()
        if self.error is not None:
            raise self.error
        uid = fieldSelector.split(",")[0].partition("=")[2]
        found, self.by_uid = self.by_uid, self.by_uid | self.then
        return {"items": [{"message": words, "lastTimestamp": when} for when, words in found.get(uid, ())]}


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def events():
    return Events()


def versioned(manifest, version=1):
    return {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": str(version)}}


def workload(index=0, size=2):
    labels = {"moorage.dev/deployment": "chat", "moorage.dev/revision": "1", "moorage.dev/group": str(index)}
    metadata = {"name": f"chat-r1-{index}", "namespace": "team", "uid": f"s{index}", "labels": labels}
    return versioned({"kind": "StatefulSet", "metadata": metadata, "spec": {"replicas": size}})


async def told(store, events):
    """Who is told again, until somebody is or it was asked often enough."""
    heard = []

    def again(key):
        heard.append(key)
        events.again.set()

    refusals = Refusals(events, store, again, interval=0.0)
    assert refusals.of(KEY) == {}, "nothing was read yet"
    task = asyncio.create_task(refusals.run())
    async with asyncio.timeout(30):
        await events.again.wait()
    task.cancel()
    return refusals, heard


async def test_the_controllers_last_words_are_told(make, store, events):
    store.put(workload())
    store.put(versioned(make.member(0)))
    events.by_uid["s0"] = [("2026-01-01T12:00:00Z", "earlier"), ("2026-01-01T12:01:00Z", QUOTA)]
    refusals, heard = await told(store, events)
    assert heard == [KEY]
    assert refusals.of(KEY) == {"s0": QUOTA}
    assert events.asked[0] == ("/api/v1/namespaces/team/events", "involvedObject.uid=s0,reason=FailedCreate")


async def test_once_the_pods_are_there_nothing_is_said(make, store, events):
    store.put(workload())
    events.by_uid["s0"] = [("2026-01-01T12:00:00Z", QUOTA)]
    refusals, _ = await told(store, events)
    assert refusals.of(KEY)
    for index in (0, 1):
        store.put(versioned(make.member(index)))
    assert refusals.of(KEY) == {}


async def test_where_no_pod_is_missing_nothing_is_asked(make, store):
    store.put(workload())
    store.put(versioned(make.member(0)))
    assert [one["metadata"]["name"] for one in incomplete(store.children(KEY))] == ["chat-r1-0"]
    store.put(versioned(make.member(1, metadata={"deletionTimestamp": "2026-01-01T12:05:00Z"})))
    assert not list(incomplete(store.children(KEY))), "the name of the next pod is taken until this one has ended"
    going = versioned(workload(1), 2)
    going["metadata"]["deletionTimestamp"] = "2026-01-01T12:05:00Z"
    store.put(going)
    assert not list(incomplete(store.children(KEY)))


async def test_it_is_asked_again_while_nothing_was_said(store, events):
    store.put(workload())
    events.then = {"s0": [("2026-01-01T12:00:00Z", QUOTA)]}
    refusals, heard = await told(store, events)
    assert heard == [KEY]
    assert refusals.of(KEY) == {"s0": QUOTA}
    assert len(events.asked) == 2


async def test_an_api_server_that_refuses_is_no_harm(store, events, caplog):
    store.put(workload())
    events.error = RejectedError(403, "forbidden", "GET events")
    refusals, heard = await told(store, events)
    assert heard == []
    assert refusals.of(KEY) == {}
    assert "cannot tell why pods are missing" in caplog.text
