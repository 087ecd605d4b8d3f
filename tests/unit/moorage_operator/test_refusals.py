"""Why pods of a group are missing, in the words of their controller."""

import asyncio
from itertools import pairwise

import pytest

from moorage_operator.cluster.client import RejectedError
from moorage_operator.cluster.store import Store
from moorage_operator.manifest import Key
from moorage_operator.shell.refusals import Refusals, incomplete

KEY = Key("team", "chat")
ENOUGH = 3
QUOTA = 'create Pod chat-r1-0-1 in StatefulSet chat-r1-0 failed error: pods "chat-r1-0-1" is forbidden: exceeded quota'


class Events:
    """The API server's events, by the uid of what they are about; `asked` is each question, and in which round."""

    def __init__(self):
        self.asked, self.by_uid, self.by_name, self.error = [], {}, {}, None
        self.then, self.again, self.enough, self.rounds, self.at = {}, asyncio.Event(), ENOUGH, 0, []

    async def sleep(self, seconds):
        assert seconds == 5
        self.rounds += 1
        await asyncio.sleep(0)

    async def get(self, path, fieldSelector):  # noqa: N803 - the API server's name
        self.asked.append((path, fieldSelector))
        self.at.append(self.rounds)
        if len(self.asked) >= self.enough:
            self.again.set()
        if self.error is not None:
            raise self.error
        found, self.by_uid = self.by_uid, self.by_uid | self.then
        said = [(when, words, uid) for uid, all_of_it in found.items() for when, words in all_of_it]
        about = [(when, words, {"uid": uid}) for when, words, uid in said]
        named = [(when, words, name) for name, all_of_it in self.by_name.items() for when, words in all_of_it]
        about += [(when, words, {"uid": f"of-{name}", "name": name}) for when, words, name in named]
        return {
            "items": [
                {"message": words, "lastTimestamp": when, "involvedObject": whose} for when, words, whose in about
            ]
        }


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

    refusals = Refusals(events, store, again, events.sleep)
    assert refusals.of(KEY) == {}, "nothing was read yet"
    task = asyncio.create_task(refusals.run())
    async with asyncio.timeout(30):
        await events.again.wait()
    task.cancel()
    return refusals, heard


def of_leader_and_workers(born="2026-01-01T12:00:00Z"):
    one = workload()
    spec = {"replicas": 1, "leaderWorkerTemplate": {"size": 2}}
    return {**one, "kind": "LeaderWorkerSet", "metadata": {**one["metadata"], "creationTimestamp": born}, "spec": spec}


@pytest.mark.parametrize("whose", ["chat-r1-0", "chat-r1-0-0"])
async def test_of_a_leaderworkerset_those_of_its_statefulsets_are_told(make, store, events, whose):
    store.put(of_leader_and_workers())
    store.put(versioned(make.member(0)))
    events.by_name[whose] = [("2026-01-01T11:59:00Z", "of one of before"), ("2026-01-01T12:01:00Z", QUOTA)]
    events.by_name["chat-r1-1"] = [("2026-01-01T12:02:00Z", "of another one")]
    refusals, heard = await told(store, events)
    assert heard == [KEY]
    assert refusals.of(KEY) == {"s0": QUOTA}


async def test_what_was_said_of_an_earlier_leaderworkerset_is_not_told(store, events):
    store.put(of_leader_and_workers())
    events.by_name["chat-r1-0"] = [("2026-01-01T11:59:00Z", QUOTA)]
    refusals, heard = await told(store, events)
    assert (heard, refusals.of(KEY)) == ([], {})


async def test_the_controllers_last_words_are_told(make, store, events):
    store.put(workload())
    store.put(versioned(make.member(0)))
    events.by_uid["s0"] = [("2026-01-01T12:00:00Z", "earlier"), ("2026-01-01T12:01:00Z", QUOTA)]
    refusals, heard = await told(store, events)
    assert heard == [KEY]
    assert refusals.of(KEY) == {"s0": QUOTA}
    assert events.asked[0] == ("/api/v1/namespaces/team/events", "involvedObject.kind=StatefulSet,reason=FailedCreate")


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


async def test_of_many_groups_one_reading_tells(store, events):
    for index in range(20):
        store.put(workload(index))
        events.by_uid[f"s{index}"] = [("2026-01-01T12:00:00Z", f"{index}: {QUOTA}")]
    events.by_uid["another"] = [("2026-01-01T12:00:00Z", "of another deployment")]
    refusals, heard = await told(store, events)
    assert (len(events.asked), heard) == (1, [KEY])
    assert refusals.of(KEY) == {f"s{index}": f"{index}: {QUOTA}" for index in range(20)}


@pytest.mark.parametrize("error", [None, RejectedError(403, "forbidden", "GET events")])
async def test_the_longer_nothing_is_said_the_rarer_it_is_asked(store, events, error):
    store.put(workload())
    events.enough, events.error = 8, error
    await told(store, events)
    assert [now - before for before, now in pairwise(events.at)] == [2, 4, 8, 12, 12, 12, 12]


async def test_an_api_server_that_refuses_is_no_harm(store, events, caplog):
    store.put(workload())
    events.error = RejectedError(403, "forbidden", "GET events")
    refusals, heard = await told(store, events)
    assert heard == []
    assert refusals.of(KEY) == {}
    assert "cannot tell why pods are missing" in caplog.text
