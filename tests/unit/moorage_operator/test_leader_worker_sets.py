"""A kind that may come and go: what groups are made as, and what is known of those that there are."""

import asyncio

import pytest

from moorage_operator.cluster.client import ClusterError, NotFoundError, RejectedError, UnreachableError
from moorage_operator.cluster.store import Store
from moorage_operator.manifest import LEADER_WORKER_SET, STATEFUL_SET, Key
from moorage_operator.shell.leader_worker_sets import LeaderWorkerSets

KEY = Key("team", "chat")
ABSENT = NotFoundError(404, "the server could not find the requested resource", "GET")
FORBIDDEN = RejectedError(403, "leaderworkersets is forbidden", "GET")


def group(index=0, version=1):
    labels = {"moorage.dev/deployment": "chat", "moorage.dev/revision": "1", "moorage.dev/group": str(index)}
    metadata = {"name": f"chat-r1-{index}", "namespace": "team", "uid": f"l{index}", "labels": labels}
    return {
        "kind": LEADER_WORKER_SET,
        "metadata": {**metadata, "resourceVersion": str(version)},
        "spec": {"replicas": 1, "leaderWorkerTemplate": {"size": 2}},
        "status": {"readyReplicas": 1},
    }


class ApiServer:
    """What it has, or why it does not say; a watch tells `events` and ends."""

    def __init__(self, *listed, error=None):
        self.listed, self.error, self.version, self.events, self.looks = list(listed), error, 10, [], 0

    async def list(self, resource, namespace, keep):
        assert (resource.full_name, namespace) == ("leaderworkersets.leaderworkerset.x-k8s.io", None)
        self.looks += 1
        if self.error is not None:
            raise self.error
        return [keep(one) for one in self.listed], self.version

    async def watch(self, resource, namespace, version):
        assert version == self.version
        for event in self.events:
            yield event


@pytest.fixture
def store():
    return Store()


def made(server, store, again=lambda _: None, sleep=asyncio.sleep):
    return LeaderWorkerSets(server, store, None, again, sleep)


async def test_groups_are_statefulsets_until_somebody_has_looked(store):
    sets = made(ApiServer(group()), store)
    assert sets.kind() == STATEFUL_SET
    assert await sets.look() == 10
    assert sets.kind() == LEADER_WORKER_SET
    (known,) = store.children(KEY)[LEADER_WORKER_SET]
    assert "status" not in known, "no decision reads it"


async def test_where_the_cluster_has_none_groups_are_statefulsets(store):
    sets = made(ApiServer(error=ABSENT), store)
    assert await sets.look() is None
    assert sets.kind() == STATEFUL_SET


async def test_when_the_kind_goes_nothing_of_it_is_left(store):
    server, heard = ApiServer(group(0), group(1)), []
    sets = made(server, store, heard.append)
    await sets.look()
    server.error = ABSENT
    assert await sets.look() is None
    assert sets.kind() == STATEFUL_SET
    assert store.children(KEY)[LEADER_WORKER_SET] == ()
    assert set(heard) == {KEY}


async def test_when_the_kind_comes_or_goes_everybody_is_looked_at_again(make, store):
    """One whose groups were refused meanwhile would wait until it tries again by itself."""
    deployment = make.deployment()
    deployment["metadata"]["resourceVersion"] = "2"
    store.put(deployment)
    server, heard = ApiServer(error=ABSENT), []
    sets = made(server, store, heard.append)
    await sets.look()
    assert heard == [], "at the start everybody is anyway"
    server.error = None
    for _ in range(2):
        await sets.look()
    assert heard == [KEY]
    server.error = ABSENT
    await sets.look()
    assert heard == [KEY, KEY]


async def test_one_that_went_without_a_word_is_found_by_the_next_look(store):
    server, heard = ApiServer(group(0), group(1)), []
    sets = made(server, store, heard.append)
    await sets.look()
    server.listed, server.version = [group(0)], 11
    await sets.look()
    assert [one["metadata"]["name"] for one in store.children(KEY)[LEADER_WORKER_SET]] == ["chat-r1-0"]
    assert heard == [KEY]


@pytest.mark.parametrize("error", [UnreachableError("GET: refused"), FORBIDDEN])
async def test_who_gets_no_answer_knows_nothing_new(store, error):
    """Nor who may not ask: groups that are there and not seen would be made once more."""
    server = ApiServer(group())
    sets = made(server, store)
    await sets.look()
    server.error = error
    with pytest.raises(ClusterError):
        await sets.look()
    assert sets.kind() == LEADER_WORKER_SET
    assert len(store.children(KEY)[LEADER_WORKER_SET]) == 1


async def test_what_the_watch_tells_is_passed_on_and_it_begins_anew(store):
    server, heard, pauses = ApiServer(group()), [], []
    server.events = [{"type": "ADDED", "object": group(1, 11)}, {"type": "DELETED", "object": group(0, 12)}]

    async def sleep(seconds):
        pauses.append(seconds)
        server.error = [ABSENT, UnreachableError("GET: refused"), None][min(len(pauses), 3) - 1]
        if len(pauses) == 4:
            raise asyncio.CancelledError

    sets = made(server, store, sleep=sleep)
    with pytest.raises(asyncio.CancelledError):
        await sets.run(lambda kind, one: heard.append((kind, one["metadata"]["name"], "status" in one)))
    told = [("ADDED", "chat-r1-1", False), ("DELETED", "chat-r1-0", False)]
    assert heard == told * 2
    assert pauses == [1, 30, 30, 1], "at once where there are some, and now and then where there are none"
