"""When the gateways are registered for custom.metrics.k8s.io, and when that is taken back."""

import base64

import pytest

from moorage_api import names
from moorage_operator.cluster.client import ConflictError, NotFoundError, UnreachableError
from moorage_operator.cluster.store import Store
from moorage_operator.manifest import Key
from moorage_operator.plan.metrics_api import (
    NAME,
    OF_PODS,
    MetricsApi,
    Seen,
    api_service,
    registration,
)
from moorage_operator.shell.registrar import ASK_SECONDS, Registrar

ROLE = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "name": "moorage-operator", "uid": "r1"}
FIRST, SECOND = "-----BEGIN 1-----", "-----BEGIN 2-----\n"
OLD = "v1beta1.custom.metrics.k8s.io"


def seen(**changes):
    return Seen(**{"services": {}, "namespace": "system", "wanted": True, "certificates": (FIRST,), **changes})


def ours(**changes):
    made = api_service(seen(**changes))
    return {**made, "metadata": {**made["metadata"], "uid": "a1", "resourceVersion": "7"}}


def foreign(name=OLD, service=("monitoring", "adapter")):
    target = None if service is None else dict(zip(("namespace", "name"), service, strict=True))
    return {"metadata": {"name": name, "uid": "a2"}, "spec": {"service": target}}


def of_pods(available):
    return {"metadata": {"name": OF_PODS}, "status": {"conditions": [{"type": "Available", "status": available}]}}


def test_ready_gateways_are_registered_with_the_certificates_of_all():
    decided = registration(seen(certificates=(SECOND, FIRST, FIRST), owner=ROLE))
    assert decided.state == MetricsApi(served=True)
    spec = decided.apply["spec"]
    assert base64.b64decode(spec["caBundle"]).decode() == "-----BEGIN 1-----\n-----BEGIN 2-----\n"
    assert spec["service"] == {"namespace": "system", "name": "moorage-gateway-metrics", "port": 443}
    assert (spec["group"], spec["version"]) == ("custom.metrics.k8s.io", "v1beta2")
    assert decided.apply["metadata"]["ownerReferences"] == [ROLE]


def test_nobody_is_registered_who_may_not_answer_though_one_who_just_went_is_expected_back():
    decided = registration(seen(silent=59.0))
    assert (decided.apply, decided.delete, decided.state) == (None, None, MetricsApi(at_hand=True))


def test_a_short_silence_takes_nothing_back():
    decided = registration(seen(services={NAME: ours()}, silent=59.9))
    assert (decided.apply, decided.delete, decided.state) == (None, None, MetricsApi(served=True))


@pytest.mark.parametrize(("there", "at_hand"), [({"silent": 60.0}, False), ({"wanted": False}, True)])
def test_it_goes_when_nobody_could_answer_or_nobody_asks(there, at_hand):
    decided = registration(seen(services={NAME: ours()}, **there))
    assert (decided.apply, decided.delete, decided.state) == (None, ours(), MetricsApi(at_hand=at_hand))
    assert decided.reason
    assert registration(seen(**there)).delete is None


@pytest.mark.parametrize("other", [foreign(), foreign(NAME), foreign("v1.custom.metrics.k8s.io")])
def test_what_somebody_else_serves_is_not_touched(other):
    decided = registration(seen(services={other["metadata"]["name"]: other}))
    assert (decided.apply, decided.delete) == (None, None)
    owner = f"{other['metadata']['name']} is served by monitoring/adapter"
    assert decided.state == MetricsApi(owner=owner)


def test_ours_makes_room_for_somebody_else_since_autoscalers_take_one_version_only():
    decided = registration(seen(services={NAME: ours(), OLD: foreign()}))
    assert (decided.apply, decided.delete) == (None, ours())
    assert decided.state.owner


def test_one_of_another_installation_is_not_ours():
    elsewhere = ours(namespace="elsewhere")
    decided = registration(seen(services={NAME: elsewhere}))
    assert (decided.apply, decided.delete) == (None, None)
    assert decided.state.owner == f"{NAME} is served by elsewhere/{names.GATEWAY_METRICS}"


def test_what_the_api_server_serves_itself_is_somebody_elses_too():
    assert registration(seen(services={OLD: foreign(service=None)})).state.owner.endswith("by the API server itself")


@pytest.mark.parametrize("services", [{OF_PODS: of_pods("True")}, {OF_PODS: of_pods("False")}, {}])
def test_metrics_server_counts_while_it_is_there_so_that_its_rollout_changes_nothing(services):
    assert registration(seen(services=services)).state.cpu is bool(services)


# The hand.


class ApiServer:
    """Keeps APIServices, and says what was done with them."""

    def __init__(self):
        self.objects, self.done, self.reads, self.down = {}, [], 0, False

    async def get(self, path):
        self.reads += 1
        if self.down:
            raise UnreachableError("down")
        if path not in self.objects:
            raise NotFoundError(404, "not found", path)
        return self.objects[path]

    async def apply(self, path, body, *, force):
        before = self.objects.get(path)
        if before is not None and body["metadata"].get("resourceVersion") != before["metadata"]["resourceVersion"]:
            raise ConflictError(409, "changed", path)
        self.done.append(("apply", force))
        version = str(len(self.done))
        self.objects[path] = {**body, "metadata": {**body["metadata"], "uid": "a1", "resourceVersion": version}}

    async def delete(self, path, *, uid, resource_version):
        live = self.objects.pop(path)["metadata"]
        assert (uid, resource_version) == (live["uid"], live["resourceVersion"])
        self.done.append(("delete", uid))


class Gateways:
    """What the registrar asks of them."""

    def __init__(self):
        self.certificates, self.serve = (FIRST,), True


PATH = f"/apis/apiregistration.k8s.io/v1/apiservices/{NAME}"
ROLE_PATH = "/apis/rbac.authorization.k8s.io/v1/clusterroles/moorage-operator"
CHAT = Key("team", "chat")


class Bench:
    """A registrar, what it stands on, and a clock."""

    def __init__(self):
        self.server, self.store, self.gateways, self.now, self.told = ApiServer(), Store(), Gateways(), 1000.0, []
        self.server.objects[ROLE_PATH] = {"metadata": {"name": "moorage-operator", "uid": "r1"}}
        how = {"again": self.told.append, "monotonic": lambda: self.now}
        self.registrar = Registrar(self.server, self.store, self.gateways, "system", **how)

    def autoscale(self, version, **spec):
        metadata = {"name": "chat", "namespace": "team", "uid": "u1", "resourceVersion": str(version)}
        self.store.put({"kind": "LLMDeployment", "metadata": metadata, "spec": spec})

    async def after(self, seconds=0.0):
        self.now += seconds
        await self.registrar.look()
        return self.registrar.state()


@pytest.fixture
def bench():
    return Bench()


async def test_it_registers_once_and_tells_those_who_wait_for_it(bench):
    assert bench.registrar.state() is None
    assert await bench.after() == MetricsApi(at_hand=True)
    assert bench.server.done == []
    bench.autoscale(1, autoscaling={})
    assert await bench.after(1) == MetricsApi(served=True)
    assert (bench.server.done, bench.told) == ([("apply", False)], [CHAT])
    (owner,) = bench.server.objects[PATH]["metadata"]["ownerReferences"]
    assert owner == ROLE
    for _ in range(100):
        await bench.after(1)
    assert (bench.server.done, bench.told) == ([("apply", False)], [CHAT])


async def test_it_asks_at_most_every_quarter_of_a_minute_and_never_where_nobody_wants_metrics(bench):
    await bench.after()
    reads = bench.server.reads
    for _ in range(100):
        await bench.after(1)
    assert bench.server.reads == reads
    bench.autoscale(1, autoscaling={})
    await bench.after(1)
    reads = bench.server.reads
    await bench.after(ASK_SECONDS - 1)
    assert bench.server.reads == reads
    await bench.after(1)
    assert bench.server.reads > reads


async def test_another_gateway_and_a_longer_silence_are_acted_upon_at_once(bench):
    bench.autoscale(1, autoscaling={})
    await bench.after()
    bench.gateways.certificates = (FIRST, SECOND)
    await bench.after(1)
    assert bench.server.done == [("apply", False), ("apply", True)]
    bench.gateways.serve = False
    assert await bench.after(59) == MetricsApi(served=True)
    assert await bench.after(1) == MetricsApi()
    assert bench.server.done[2:] == [("delete", "a1")]
    bench.gateways.serve = True
    assert await bench.after(1) == MetricsApi(served=True)


async def test_it_goes_with_the_installation_that_is_there_now(bench):
    bench.autoscale(1, autoscaling={})
    await bench.after()
    bench.server.objects[ROLE_PATH] = {"metadata": {"name": "moorage-operator", "uid": "r2"}}
    await bench.after(ASK_SECONDS)
    (owner,) = bench.server.objects[PATH]["metadata"]["ownerReferences"]
    assert owner["uid"] == "r2", "garbage collection would take the one with the old owner away, again and again"


async def test_without_anybody_who_scales_it_is_taken_back(bench):
    bench.autoscale(1, autoscaling={})
    await bench.after()
    bench.autoscale(2)
    assert await bench.after(1) == MetricsApi(at_hand=True)
    assert PATH not in bench.server.objects


async def test_what_could_not_be_read_is_asked_for_again_and_changes_nothing(bench):
    bench.autoscale(1, autoscaling={})
    await bench.after()
    bench.server.down, bench.gateways.serve = True, False
    with pytest.raises(UnreachableError):
        await bench.after(100)
    assert bench.registrar.state() == MetricsApi(served=True)
    bench.server.down, bench.gateways.serve = False, True
    assert await bench.after(0) == MetricsApi(served=True)


async def test_without_gateways_nothing_is_registered(bench):
    bench.autoscale(1, autoscaling={})
    bench.registrar = Registrar(bench.server, bench.store, None, "", again=bench.told.append)
    assert await bench.after() == MetricsApi()
    assert bench.server.done == []
