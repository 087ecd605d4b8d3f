"""Snapshot, plan, execute, one round after the other, against an API server that keeps what it is given."""

import itertools
from datetime import timedelta

import pytest

from moorage_operator.cluster.client import ConflictError, NotFoundError, RejectedError, UnreachableError
from moorage_operator.cluster.store import Store
from moorage_operator.cluster.writer import Writer
from moorage_operator.manifest import Key
from moorage_operator.plan.metrics_api import MetricsApi
from moorage_operator.plan.nodes import Nodes, nodes
from moorage_operator.render.context import Owner
from moorage_operator.shell.reconcile import Reconciler

CHAT = Key("team", "chat")
DEPLOYMENT = "/apis/moorage.dev/v1alpha1/namespaces/team/llmdeployments/chat"
SERVICE = "/api/v1/namespaces/team/services/chat"


class ApiServer:
    """Objects by path; each write makes the next version."""

    def __init__(self):
        self.objects = {}
        self._versions = itertools.count(100)

    async def get(self, path, **_):
        if path not in self.objects:
            raise NotFoundError(404, "not found", path)
        return self.objects[path]

    async def apply(self, path, body):
        version = str(next(self._versions))
        if path.endswith("/status") and path.removesuffix("/status") not in self.objects:
            raise NotFoundError(404, "not found", path)
        path, of = path.removesuffix("/status"), self.objects.get(path.removesuffix("/status"), {})
        named = body["metadata"].get("resourceVersion")
        if of and named not in (None, of["metadata"]["resourceVersion"]):
            raise ConflictError(409, "the object has been modified", path)
        born = {"creationTimestamp": "2026-01-01T11:00:00Z", "uid": f"u{version}"}
        metadata = {**born, **of.get("metadata", {}), **body["metadata"], "resourceVersion": version}
        self.objects[path] = {**of, **body, "metadata": metadata}
        return self.objects[path]


class Events:
    def __init__(self):
        self.told = []
        self.fails_with = None

    async def tell(self, deployment, kind, reason, message):
        if self.fails_with is not None:
            raise self.fails_with
        self.told.append(reason)


@pytest.fixture
def server():
    return ApiServer()


@pytest.fixture
def store(make, server):
    store = Store()
    deployment = make.deployment()
    deployment["metadata"]["resourceVersion"] = "1"
    server.objects[DEPLOYMENT] = deployment
    store.put(deployment)
    return store


@pytest.fixture
def events():
    return Events()


@pytest.fixture
def reconciler(make, server, store, events):
    return Reconciler(store, Writer(server, store), events, make.context, lambda: make.now)


def ready(store):
    conditions = store.get("LLMDeployment", "team", "chat")["status"]["conditions"]
    return next(one for one in conditions if one["type"] == "Ready")


def occupied(server, store):
    """Somebody else has the Service's name, which is told by an event."""
    metadata = {"name": "chat", "namespace": "team", "uid": "x", "resourceVersion": "4"}
    server.objects[SERVICE] = stranger = {"kind": "Service", "apiVersion": "v1", "metadata": metadata}
    store.put_foreign(CHAT, stranger)


async def test_it_goes_on_once_a_stranger_with_the_name_that_it_needs_is_gone(reconciler, server, store):
    occupied(server, store)
    while (wait := await reconciler.reconcile(CHAT)) == 0:
        pass
    assert wait == 30
    assert "Service chat exists and belongs to somebody else" in ready(store)["message"]

    del server.objects[SERVICE]
    assert await reconciler.reconcile(CHAT) == 0, "no watch tells of it: it has to be looked for"
    while await reconciler.reconcile(CHAT) == 0:
        pass
    assert server.objects[SERVICE]["spec"]["selector"]["moorage.dev/deployment"] == "chat"


async def test_a_deployment_that_went_unseen_gets_no_children_made_again_for_ever(
    make, reconciler, server, store, events
):
    store.put(make.ready())
    while await reconciler.reconcile(CHAT) == 0:
        pass
    server.objects.clear()  # the deployment goes, of which no watch told, and garbage collection follows
    for child in [one for kind in store.children(CHAT).values() for one in kind]:
        store.remove(child)
    events.told.clear()

    rounds = [await reconciler.reconcile(CHAT) for _ in range(6)]
    assert rounds[-1] is None, "it ends there"
    assert store.get("LLMDeployment", "team", "chat") is None
    assert events.told == [], "there is nobody to tell of"


async def test_an_event_that_did_not_arrive_is_told_at_the_next_try(reconciler, server, store, events):
    """The status is written all the same and says it already, so no later plan calls for the event."""
    occupied(server, store)
    events.fails_with = UnreachableError("timed out")
    for _ in range(2):
        with pytest.raises(UnreachableError):
            await reconciler.reconcile(CHAT)
    assert ready(store)["reason"] == "WorkloadRefused"
    events.fails_with = None
    for _ in range(3):
        await reconciler.reconcile(CHAT)
    assert events.told == ["WorkloadRefused"]


async def test_an_event_is_told_before_the_status_that_makes_it_old(make, reconciler, server, store, events):
    """Whoever dies between the two writes leaves a status from which the next one tells it again."""
    occupied(server, store)

    async def dies(path, body):
        raise UnreachableError("killed")

    server.apply, apply = dies, server.apply
    with pytest.raises(UnreachableError):
        await reconciler.reconcile(CHAT)
    assert events.told == ["WorkloadRefused"]
    server.apply = apply
    after_death = Reconciler(store, Writer(server, store), events, make.context, lambda: make.now)
    while await after_death.reconcile(CHAT) == 0:
        pass
    assert events.told == ["WorkloadRefused", "WorkloadRefused"], "under the same name: the API server keeps one"


async def test_events_that_the_cluster_refuses_hold_nothing_up(reconciler, server, store, events):
    occupied(server, store)
    events.fails_with = RejectedError(403, "exceeded quota: count/events", "POST")
    while (wait := await reconciler.reconcile(CHAT)) == 0:
        pass
    assert wait == 30


@pytest.mark.parametrize(
    ("words", "looks"),
    [
        ("1 Insufficient nvidia.com/gpu", True),
        ("1 node(s) didn't match Pod's node affinity/selector", True),
        ("1 Insufficient memory", True),
        ("1 node(s) had untolerated taint {spot: true}", False),
    ],
)
async def test_nodes_are_asked_for_only_by_who_waits_for_room_on_one(make, server, store, words, looks):
    asked = []
    wanted = make.deployment(accelerator={"count": 1})
    wanted["metadata"]["resourceVersion"] = "2"
    server.objects[DEPLOYMENT] = wanted
    store.put(wanted)
    how = Events(), make.context, lambda: make.now
    reconciler = Reconciler(store, Writer(server, store), *how, nodes=asked.append)
    while await reconciler.reconcile(CHAT) == 0:
        pass
    assert asked == []
    waiting = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    pod = make.pod(conditions=[{**waiting, "message": words, "lastTransitionTime": "2026-01-01T00:00:00Z"}])
    store.put({**pod, "metadata": {**pod["metadata"], "resourceVersion": "7"}})
    await reconciler.reconcile(CHAT)
    assert asked == ([CHAT] if looks else [])


class Clock:
    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now

    def pass_by(self, seconds):
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock(make):
    return Clock(make.now)


async def rests(reconciler):
    while (wait := await reconciler.reconcile(CHAT)) == 0:
        pass
    return wait


async def test_what_starts_pods_comes_first_and_the_rest_once_others_had_their_turn(reconciler, server):
    assert await reconciler.reconcile(CHAT) == 0
    assert "/apis/apps/v1/namespaces/team/deployments/chat-r1" in server.objects
    assert SERVICE not in server.objects
    assert await reconciler.reconcile(CHAT) == 0
    assert SERVICE in server.objects


async def test_phases_that_are_over_soon_are_never_written(make, server, store, events, clock):
    reconciler = Reconciler(store, Writer(server, store), events, make.context, clock)
    assert await rests(reconciler) == 2
    clock.pass_by(1.5)
    store.put(make.on_node())
    assert await rests(reconciler) == 0.5
    assert "status" not in store.get("LLMDeployment", "team", "chat")
    store.put({**make.ready(), "metadata": {**make.ready()["metadata"], "resourceVersion": "9"}})
    await rests(reconciler)
    assert ready(store)["reason"] == "Serving"


async def test_a_phase_that_lasts_is_written(make, server, store, events, clock):
    reconciler = Reconciler(store, Writer(server, store), events, make.context, clock)
    await rests(reconciler)
    clock.pass_by(2)
    await rests(reconciler)
    assert ready(store)["reason"] == "Scheduling"
    store.put(make.on_node())
    assert await rests(reconciler) == 2
    assert ready(store)["reason"] == "Scheduling"
    clock.pass_by(-3600)
    await rests(reconciler)
    assert ready(store)["reason"] == "FetchingModel", "nobody waits for a clock that was put back"


async def test_trouble_waits_for_nothing(make, server, store, events, clock):
    reconciler = Reconciler(store, Writer(server, store), events, make.context, clock)
    await rests(reconciler)
    store.put(make.on_node(server=make.ended("boom")))
    await rests(reconciler)
    assert ready(store)["reason"] == "EngineFailed"


async def test_a_refused_autoscaler_is_told_of_and_holds_up_nothing(make, server, store):
    scaled = make.deployment(autoscaling={"maxReplicas": 4, "targets": [{"metric": "QueueDepth", "averageValue": "2"}]})
    scaled["metadata"]["resourceVersion"] = "2"
    server.objects[DEPLOYMENT] = scaled
    store.put(scaled)
    apply, deleted = server.apply, []

    async def refuse(path, body):
        if "horizontalpodautoscalers" in path:
            raise RejectedError(403, "exceeded quota: few", path)
        return await apply(path, body)

    async def delete(path, **_):
        deleted.append(path)

    server.apply, server.delete = refuse, delete
    owner = Owner("chat", "team", "u1")
    old = {**owner.metadata("chat", owner.labels()), "uid": "b1", "resourceVersion": "5"}
    store.put({"kind": "PodDisruptionBudget", "apiVersion": "policy/v1", "metadata": old})
    seconds, served = itertools.count(step=5), {"metrics": lambda: MetricsApi(served=True)}
    writer, late = Writer(server, store), lambda: make.now + timedelta(seconds=next(seconds))
    reconciler = Reconciler(store, writer, Events(), make.context, late, **served)
    for _ in range(10):
        wait = await reconciler.reconcile(CHAT)
    assert [path.rsplit("/", 2)[-2] for path in deleted] == ["poddisruptionbudgets"], "what is to go goes"
    assert ready(store)["reason"] != "WorkloadRefused"
    conditions = store.get("LLMDeployment", "team", "chat")["status"]["conditions"]
    (found,) = [one for one in conditions if one["type"] == "ScalingActive"]
    assert (found["status"], found["reason"]) == ("False", "ScalingRefused")
    assert found["message"].startswith("Exceeded quota: few. ")
    assert 0 < wait <= 30


async def test_in_a_namespace_that_goes_nothing_is_said_and_nothing_made_again(reconciler, server, store, events):
    words = 'deployments.apps "chat-r1" is forbidden: unable to create new content in namespace team because it is '

    async def refuse(path, body):
        raise RejectedError(403, f"{words}being terminated", path)

    server.apply = refuse
    assert await reconciler.reconcile(CHAT) == 10
    assert "status" not in store.get("LLMDeployment", "team", "chat")
    assert events.told == []


async def test_who_waits_for_accelerators_is_told_of_once_the_nodes_are_read(make, server, store, events, clock):
    """After a restart, too: nobody has read them then, and to say less for a moment would be two writes for each."""
    wanted = make.deployment(accelerator={"resource": "nvidia.com/gpu", "count": 1})
    wanted["metadata"]["resourceVersion"] = "2"
    server.objects[DEPLOYMENT] = wanted
    store.put(wanted)
    read = Nodes(nodes([{"metadata": {"name": "n"}, "status": {"allocatable": {"nvidia.com/gpu": "8"}}}], {}))
    known = []

    def start():
        how = {"nodes": lambda _: known[0] if known else None}
        return Reconciler(store, Writer(server, store), events, make.context, clock, **how)

    reconciler = start()
    await rests(reconciler)
    said = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "Insufficient nvidia.com/gpu",
    }
    pod = make.pod(conditions=[said])
    store.put({**pod, "metadata": {**pod["metadata"], "resourceVersion": "7"}})
    assert 0 < await rests(reconciler) <= 10
    assert "status" not in server.objects[DEPLOYMENT]
    known.append(read)
    await rests(reconciler)
    assert ready(store)["reason"] == "WaitingForGPU"
    assert "n has 8 of 8 free" in ready(store)["message"]

    written = server.objects[DEPLOYMENT]
    known.clear()
    reconciler = start()
    assert 0 < await rests(reconciler) <= 10
    known.append(read)
    await rests(reconciler)
    assert server.objects[DEPLOYMENT] is written

    known.clear()  # and while they cannot be read for long, the rest is said
    await rests(reconciler)
    clock.pass_by(10)
    await rests(reconciler)
    assert ready(store)["message"].startswith("Insufficient nvidia.com/gpu")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ('Internal error occurred: failed calling webhook "m.example": connection refused', "WorkloadRefused"),
        ("etcdserver: request timed out", None),
    ],
)
async def test_that_nobody_answers_who_has_to_agree_is_told(reconciler, server, store, words, reason):
    """An error of the API server's own is over in a moment; that one is not."""
    apply = server.apply

    async def refuse(path, body):
        if body["kind"] == "Deployment":
            raise RejectedError(500, words, path)
        return await apply(path, body)

    server.apply = refuse
    for _ in range(3):
        with pytest.raises(RejectedError):
            await reconciler.reconcile(CHAT)
    status = store.get("LLMDeployment", "team", "chat").get("status", {})
    assert next((one["reason"] for one in status.get("conditions", ()) if one["type"] == "Ready"), None) == reason
