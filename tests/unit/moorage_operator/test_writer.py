"""What is written, and what counts as a change."""

import pytest

from moorage_operator.cluster.client import ConflictError, NotFoundError
from moorage_operator.cluster.compare import includes
from moorage_operator.cluster.store import Store
from moorage_operator.cluster.writer import Writer
from moorage_operator.manifest import Key, uid_of

OWNER = {"kind": "LLMDeployment", "metadata": {"name": "chat", "namespace": "team", "uid": "owner"}}


def workload(image, version=None):
    owners = [{"kind": "LLMDeployment", "name": "chat", "uid": "owner", "controller": True}]
    metadata = {"name": "chat-r1", "namespace": "team", "ownerReferences": owners}
    stored = {} if version is None else {"uid": "u1", "resourceVersion": str(version)}
    return {"kind": "Deployment", "apiVersion": "apps/v1", "metadata": metadata | stored, "spec": {"image": image}}


class ApiServer:
    """Answers an apply with an object; counts how often."""

    def __init__(self, answer):
        self.answer = answer
        self.applies = 0

    async def apply(self, path, body):
        self.applies += 1
        return self.answer


@pytest.fixture
def store():
    store = Store()
    store.put(workload("mirror/x:1", version=7))
    return store


async def test_what_a_policy_of_the_cluster_turns_into_its_own_is_no_change(store):
    """An admission webhook writes images anew: asking again brings the same object, and must not go on for ever."""
    server = ApiServer(workload("mirror/x:1", version=7))
    assert not await Writer(server, store).apply(OWNER, workload("x:1"))
    assert server.applies == 1


async def test_what_is_different_afterwards_is_a_change(store):
    server = ApiServer(workload("x:2", version=8))
    assert await Writer(server, store).apply(OWNER, workload("x:2"))


async def test_what_is_there_already_is_not_asked_for(store):
    server = ApiServer(None)
    assert not await Writer(server, store).apply(OWNER, workload("mirror/x:1"))
    assert server.applies == 0


async def test_a_deployment_whose_status_has_no_place_any_more_is_forgotten(make):
    """A watch may miss a deletion: the refusal of its status is then the first sign of it."""

    class Empty:
        async def apply(self, path, body):
            raise NotFoundError(404, "not found", path)

    store = Store()
    store.put(make.deployment())
    assert await Writer(Empty(), store).report(make.deployment(), {"ready": "0/1"})
    assert len(store) == 0


async def test_a_pod_is_made_and_never_changed(store):
    """So that the operator needs no right to change pods."""

    class Pods:
        def __init__(self):
            self.made = []

        async def create(self, path, body):
            self.made.append(path)
            return {**body, "metadata": {**body["metadata"], "uid": "p1", "resourceVersion": "9"}}

    owners = workload("x")["metadata"]["ownerReferences"]
    metadata = {"name": "chat-r1-resolve", "namespace": "team", "ownerReferences": owners}
    pod = {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": {}}
    server = Pods()
    writer = Writer(server, store)
    assert await writer.apply(OWNER, pod)
    assert not await writer.apply(OWNER, {**pod, "spec": {"other": True}})
    assert server.made == ["/api/v1/namespaces/team/pods"]
    with pytest.raises(ConflictError):
        await writer.apply({**OWNER, "metadata": {**OWNER["metadata"], "uid": "its namesake"}}, pod)


def test_an_annotation_of_ours_that_is_not_wanted_any_more_is_a_difference():
    """Also after a restart, when nobody remembers what was applied last."""
    live = {"metadata": {"annotations": {"moorage.dev/steering": "paused", "other.dev/x": "y"}}}
    assert includes(live, live)
    assert includes(live, {"metadata": {"annotations": {"moorage.dev/steering": "paused"}}})
    assert not includes(live, {"metadata": {"annotations": {}}})
    assert not includes({"spec": {"template": live}}, {"spec": {"template": {"metadata": {}}}})


class Occupied:
    """Has a pod of that name, which no list or watch of ours shows."""

    def __init__(self, found):
        self.found = found

    async def create(self, path, body):
        raise ConflictError(409, "already exists", path)

    async def get(self, path, **_):
        assert path == "/api/v1/namespaces/team/pods/chat-r1-resolve"
        if self.found is None:
            raise NotFoundError(404, "not found", path)
        return self.found


def lookup(owner="owner"):
    owners = [{"kind": "LLMDeployment", "name": "chat", "uid": owner, "controller": True}]
    metadata = {"name": "chat-r1-resolve", "namespace": "team", "uid": "p", "resourceVersion": "4"}
    return {"kind": "Pod", "apiVersion": "v1", "metadata": {**metadata, "ownerReferences": owners}}


async def test_a_pod_of_somebody_else_with_the_name_is_in_the_store_afterwards(store):
    with pytest.raises(ConflictError):
        await Writer(Occupied(lookup("another")), store).apply(OWNER, lookup())
    assert [uid_of(pod) for pod in store.children(Key("team", "chat"))["Pod"]] == ["p"]
    with pytest.raises(ConflictError, match="belongs to somebody else"):
        await Writer(Occupied(lookup("another")), store).apply(OWNER, lookup())


async def test_a_pod_that_was_made_before_a_death_is_found(store):
    with pytest.raises(ConflictError):
        await Writer(Occupied(lookup()), store).apply(OWNER, lookup())
    assert not await Writer(Occupied(lookup()), store).apply(OWNER, lookup())


async def test_a_pod_that_went_between_the_two_is_tried_again(store):
    with pytest.raises(ConflictError, match="already exists"):
        await Writer(Occupied(None), store).apply(OWNER, lookup())
    assert store.get("Pod", "team", "chat-r1-resolve") is None


class Hidden:
    """Has a workload that the store does not know of, and minds the version that an apply names, as the real one."""

    def __init__(self, found=None):
        self.found, self.asked = found, []

    async def get(self, path, **_):
        self.asked.append("get")
        return self.found

    async def apply(self, path, body):
        self.asked.append("apply")
        named = body["metadata"].get("resourceVersion")
        if self.found is not None and named not in (None, self.found["metadata"]["resourceVersion"]):
            raise ConflictError(409, "the object has been modified", path)
        self.found = workload(body["spec"]["image"], version=10)
        return self.found


async def test_what_is_not_there_is_made_by_one_request():
    server = Hidden()
    assert await Writer(server, Store()).apply(OWNER, workload("x:1"))
    assert server.asked == ["apply"]


async def test_a_child_that_nobody_knew_of_is_not_written_over():
    """The plan was made without it, by what an API server that lags behind said: it might take live replicas away."""
    store, server = Store(), Hidden(workload("x:2", version=9))
    with pytest.raises(ConflictError):
        await Writer(server, store).apply(OWNER, workload("x:1"))
    assert server.found["spec"] == {"image": "x:2"}
    assert store.get("Deployment", "team", "chat-r1")["spec"] == {"image": "x:2"}
    assert await Writer(server, store).apply(OWNER, workload("x:1")), "the next plan knows it"


async def test_what_the_store_does_not_believe_is_asked_for_with_patience():
    """We deleted it, and an API server that lags behind still shows it: that is no change, to be followed at once."""
    store, there = Store(), workload("x:2", version=9)
    store.removed(there)
    for _ in range(2):
        with pytest.raises(ConflictError):
            await Writer(Hidden(there), store).apply(OWNER, workload("x:1"))
    assert store.live(there) is None


async def test_a_child_on_its_way_out_is_waited_for():
    gone = workload("x:1", version=9)
    gone["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    store = Store()
    with pytest.raises(ConflictError):
        await Writer(Hidden(gone), store).apply(OWNER, workload("x:1"))
    assert store.live(gone) is None


async def test_what_was_found_as_wanted_is_not_taken_for_another_wish(store):
    """What has been compared once is not compared again until either side is another."""
    server = ApiServer(workload("x:2", version=8))
    writer = Writer(server, store)
    for _ in range(2):
        assert not await writer.apply(OWNER, workload("mirror/x:1"))
    assert server.applies == 0
    assert await writer.apply(OWNER, workload("x:2"))
    assert not await writer.apply(OWNER, workload("x:2"))
    assert server.applies == 1
    store.put(workload("somebody's own", version=9))
    await writer.apply(OWNER, workload("x:2"))
    assert server.applies == 2


@pytest.mark.parametrize(
    ("kind", "api", "order"),
    [
        ("LeaderWorkerSet", "leaderworkerset.x-k8s.io/v1", {"propagation": "Foreground"}),
        ("StatefulSet", "apps/v1", {}),
    ],
)
async def test_all_pods_of_a_group_are_told_to_go_at_once(kind, api, order):
    """Those of a LeaderWorkerSet belong to its first pod: in the background they would go after that one has ended."""

    class Deletions:
        async def delete(self, path, **how):
            self.how = how

    server, group = Deletions(), {**workload("x", version=7), "kind": kind, "apiVersion": api}
    await Writer(server, Store()).delete(group)
    assert server.how == {"uid": "u1", "resource_version": "7", **order}
