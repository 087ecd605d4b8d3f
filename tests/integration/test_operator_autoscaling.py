"""Autoscaling as a whole: the operator with the chart's rights, a real gateway, the API server's own autoscaler.

Replicas and kubelet are the test itself: each pod becomes a replica that tells what the test says of its load.
MOORAGE_METRICS_LOST_SECONDS=600 makes the metrics stay away that long, which the bar R21 asks for; without it they do
for as many looks of the autoscaler as make it certain that it holds.
"""

import asyncio
import contextlib
import json
import os
import time

import pytest

from moorage_api import names
from moorage_operator.plan.metrics_api import NAME, OF_THE_GROUP
from tests.integration.gateway_kit import (
    DEADLINE,
    Cluster,
    Gateway,
    Replica,
    free_port,
    metrics_service,
    until,
)
from tests.integration.operator_kit import READY, Kubelet, Operator, Proxy, is_ready
from tests.integration.team_kit import Team, settled

OLD = OF_THE_GROUP[0]
AUTOSCALING = {
    "maxReplicas": 3,
    "targets": [{"metric": "RequestsInFlight", "averageValue": "8"}],
    "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
}
SYNCS = 5
"""Looks of an autoscaler that finds nothing, after which it is certain that it holds."""
LOST_SECONDS = float(os.environ.get("MOORAGE_METRICS_LOST_SECONDS") or 0)
"""How long it finds nothing, at least."""
SCALES = 100
CHANGES = 6
"""Of the figures that an autoscaler finds, in which a status that followed them would be written as often."""


@pytest.fixture
def proxy(kubeconfig, rights_of_the_cluster, namespace):
    proxy = Proxy(kubeconfig, rights_of_the_cluster)
    yield proxy
    refused = [path for _, path in proxy.refused if f"/namespaces/{namespace}/" in path or "/namespaces/" not in path]
    proxy.close()
    assert refused == [], "the chart gives too few rights; in namespaces that go everybody is refused"


@pytest.fixture
def operator(proxy, namespace, tmp_path, eventually):
    running = Operator(tmp_path, proxy.url, namespace, gateways=True, everywhere=True).start()
    eventually(running.leads, bool, 60)
    yield running
    running.stop()


class Doors:
    """The one gateway, which may go and come back at the same place."""

    def __init__(self, http, cluster, kubeconfig, address):
        self.http, self.cluster, self.address, self.port = http, cluster, address, free_port()
        self.environ = {"MOORAGE_KUBECONFIG": str(kubeconfig), "MOORAGE_NAMESPACE": cluster.namespace}
        self.gateway = None

    async def appear(self):
        for each in metrics_service(self.cluster.namespace, self.address, self.port):
            await self.cluster.create(each)
        await self.cluster.labelled_pod("one", {names.NAME_LABEL: names.GATEWAY}, self.address)
        await self.open()

    async def open(self):
        flags = f"--metrics-port={self.port}", "--pod-name=one", f"--watch-namespace={self.cluster.namespace}"
        internal = names.GATEWAY_INTERNAL_PORT
        self.gateway = await Gateway.start(self.http, *flags, host=self.address, internal=internal, **self.environ)

    async def close(self):
        await self.gateway.end()


@pytest.fixture
async def doors(http, kubectl, kubeconfig, namespace, address):
    doors = Doors(http, Cluster(kubectl, namespace), kubeconfig, address)
    await doors.appear()
    yield doors
    await doors.close()


class Crowd:
    """Makes a replica of each pod, and gives all of them together so many requests; `silent` ones tell no figure.

    Each generates tokens at the same `pace`.
    """

    selector = f"{names.RANK_LABEL}=0"

    def __init__(self, api, namespace):
        self.kubelet, self.replicas = Kubelet(api, namespace), {}
        self.load = self.silent = self.pace = 0
        self.fewest = None

    async def tend(self):
        while True:
            pods = await asyncio.to_thread(self.kubelet.pods, self.selector)
            for name in {*self.replicas} - {pod["metadata"]["name"] for pod in pods}:
                await self.replicas.pop(name).stop()
            for pod in pods:
                if not is_ready(pod):
                    await self._start(pod)
            self._share()
            self.fewest = min(len(pods), len(pods) if self.fewest is None else self.fewest)
            await asyncio.sleep(0.1)

    async def _start(self, pod):
        replica = Replica()
        await replica.start()
        self.replicas[pod["metadata"]["name"]] = replica
        status = {**READY, "podIP": replica.address, "podIPs": [{"ip": replica.address}]}
        await asyncio.to_thread(self.kubelet.report, pod, status)

    def _share(self):
        for index, replica in enumerate(self.replicas.values()):
            part = self.load // len(self.replicas) + (index < self.load % len(self.replicas))
            told = {"running": part, "waiting": 0, "tokensPerSecond": self.pace}
            replica.telemetry = {} if index < self.silent else told


class Ranks(Crowd):
    """The same of replicas that are two pods each; the second one tells of work, too, as no pod of ranks does."""

    selector = names.GROUP_LABEL

    def _share(self):
        everybody = self.replicas
        self.replicas = {name: one for name, one in everybody.items() if name.endswith("-0")}
        super()._share()
        for name in everybody.keys() - self.replicas.keys():
            everybody[name].telemetry = {"running": 50, "waiting": 0}
        self.replicas = everybody


@pytest.fixture(params=[Crowd])
async def crowd(request, api, namespace):
    crowd = request.param(api, namespace)
    tending = asyncio.create_task(crowd.tend())
    yield crowd
    tending.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await tending
    for replica in crowd.replicas.values():
        await replica.stop()


def becomes(value):
    return lambda seen: seen == value


class Watcher(Team):
    """What a person sees, without standing in the way of the replicas."""

    async def sees(self, look, accept, seconds=DEADLINE):
        return await until(lambda: asyncio.to_thread(look), accept, seconds)

    def told(self, name="chat"):
        """The condition ScalingActive; nothing where there is none."""
        conditions = {one["type"]: one for one in self.status(name).get("conditions", ())}
        return conditions.get("ScalingActive", {})

    def scaling(self, name="chat"):
        return self.told(name).get("reason")

    def ready(self, name="chat"):
        return self.status(name).get("ready")

    def registered(self):
        done = self.kubectl.run("get", "apiservice", NAME, "--output=json")
        return json.loads(done.stdout) if done.returncode == 0 else None

    def failures(self):
        """How often the autoscaler has found no metric."""
        events = self.get("events", "--field-selector=reason=FailedGetObjectMetric")["items"]
        return sum(one.get("count") or (one.get("series") or {}).get("count", 1) for one in events)


@pytest.fixture
def team(kubectl, api, namespace, eventually):
    return Watcher(kubectl, api, namespace, eventually)


@pytest.fixture
async def chat(operator, doors, crowd, team):
    """A model with one replica, whose autoscaler reads its figure."""
    await asyncio.to_thread(team.apply, autoscaling=AUTOSCALING)
    await team.sees(team.scaling, becomes("MetricsFound"))


@pytest.fixture
async def three(chat, crowd, team):
    """The load has brought three replicas."""
    crowd.load = 24
    return await team.sees(team.status, lambda seen: seen.get("ready") == "3/3")


class Lost:
    """Metrics that the autoscaler does not get, while the load would allow fewer replicas."""

    def __init__(self, crowd, team, bar):
        self.crowd, self.team, self.bar = crowd, team, bar

    @contextlib.asynccontextmanager
    async def on(self, how, seconds=LOST_SECONDS):
        """Wait until none is found, and then for as long as it is to last; nothing goes in the meantime."""
        before = await asyncio.to_thread(self.team.failures)
        yield
        await self.team.sees(self.team.failures, lambda count: count > before)
        began, before = time.monotonic(), await asyncio.to_thread(self.team.failures)
        self.crowd.load, self.crowd.fewest = 1, None
        # Not by events alone: of the same ones the API server's recorder drops all but some.
        await self.team.sees(self.team.failures, lambda count: count >= before + SYNCS)
        await until(self._seconds_since(began), lambda passed: passed >= seconds, seconds + DEADLINE)
        self.bar(f"R21 {how}", fewest_of_3=self.crowd.fewest, seconds=time.monotonic() - began)
        assert self.crowd.fewest == 3

    @staticmethod
    def _seconds_since(began):
        async def passed():
            return time.monotonic() - began

        return passed


@pytest.fixture
def lost(crowd, team, bar):
    return Lost(crowd, team, bar)


async def test_replicas_follow_the_load_and_never_fall_while_no_gateway_is_there(three, lost, doors, team):
    told = [one["reason"] for one in three["decisions"] if one["kind"] == "Scale"]
    assert any("; HPA: RequestsInFlight 24 over 8 per replica" in one for one in told), told
    assert team.registered()["metadata"]["ownerReferences"][0]["kind"] == "ClusterRole"

    async with lost.on("no gateway"):
        await doors.close()
    await doors.open()
    await team.sees(team.ready, becomes("1/1"))


@pytest.mark.usefixtures("three")
async def test_replicas_never_fall_while_more_than_a_fifth_of_them_tell_nothing(lost, crowd, team):
    async with lost.on("silent replica"):
        crowd.silent = 1
    crowd.silent = 0
    await team.sees(team.ready, becomes("1/1"))


@pytest.mark.usefixtures("chat")
async def test_somebody_elses_adapter_is_left_alone_and_ours_comes_back_after_it(doors, team):
    spec = {"group": names.METRICS_GROUP, "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100}
    spec |= {"service": {"namespace": "default", "name": "adapter"}, "insecureSkipTLSVerify": True}
    other = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": OLD}, "spec": spec}
    await doors.cluster.create(other)
    try:
        await team.sees(team.scaling, becomes("MetricsOwnedByAnother"))
        assert team.registered() is None
        assert f"{OLD} is served by default/adapter" in json.dumps(team.status())
        left = await asyncio.to_thread(team.get, "horizontalpodautoscalers")
        assert left["items"] == []
    finally:
        await doors.cluster.remove("apiservice", OLD)
    await team.sees(team.scaling, becomes("MetricsFound"))


@pytest.mark.usefixtures("chat")
async def test_whoever_else_writes_the_number_is_named(team):
    """Once the API server records it, by name. What the autoscaler writes counts in the end."""

    def scaled_again():
        """As another autoscaler does it: seconds later the number is back."""
        team.kubectl("scale", "llmdep/chat", "--replicas=2", f"--namespace={team.namespace}")
        return team.told()

    told = await team.sees(scaled_again, lambda said: said["reason"] == "ReplicasOwnedByTwo")
    assert told["message"].startswith("Somebody scaled it last. "), "of what was applied without a number"
    await team.sees(team.scaling, becomes("MetricsFound"))

    def synced_again():
        """As GitOps tools do it, by force."""
        team.apply(autoscaling=AUTOSCALING, replicas=2)
        return team.scaling()

    await team.sees(synced_again, becomes("ReplicasOwnedByTwo"))
    await team.sees(lambda: team.look_at()["spec"]["replicas"], becomes(1))
    told = await team.sees(
        team.told, lambda said: said["observedGeneration"] == team.look_at()["metadata"]["generation"]
    )
    assert told["reason"] == "ReplicasOwnedByTwo", "at its next sync it does so again"
    assert told["message"].startswith("Kubectl applies spec.replicas. ")
    assert "Remove replicas from what is applied" in told["message"]


@pytest.mark.usefixtures("chat")
async def test_a_gateway_that_starts_anew_is_trusted_by_its_new_certificate(doors, team):
    first = team.registered()["spec"]["caBundle"]
    await doors.close()
    await doors.open()
    await team.sees(team.registered, lambda seen: seen is not None and seen["spec"]["caBundle"] != first)


@pytest.mark.usefixtures("chat")
async def test_what_was_registered_goes_with_the_installation(operator, team, kubectl):
    await asyncio.to_thread(operator.stop)
    assert team.registered() is not None
    kubectl("delete", "clusterrole", "moorage-operator")
    await team.sees(team.registered, lambda seen: seen is None)


@pytest.mark.usefixtures("operator", "crowd")
async def test_without_autoscaling_there_is_no_autoscaler_and_nothing_is_registered(doors, team):
    await asyncio.to_thread(team.apply, autoscaling=AUTOSCALING)
    await team.sees(team.scaling, becomes("MetricsFound"))
    remove = json.dumps([{"op": "remove", "path": "/spec/autoscaling"}])
    await doors.cluster.kubectl("patch", "llmdeployment", "chat", "--type=json", f"--patch={remove}")
    await team.sees(lambda: team.get("horizontalpodautoscalers")["items"], lambda items: items == [])
    await team.sees(team.registered, lambda seen: seen is None)
    await team.sees(team.scaling, becomes(None))


async def settled_writes(proxy, since=0):
    """What was written about the namespace, but for the registration, once nothing came for a while."""
    until_now = await asyncio.to_thread(settled, proxy, 3)
    return [path.split("/", 1)[1] for _, path in proxy.writes[since:until_now] if not path.startswith("/apis/")]


@pytest.mark.usefixtures("operator", "doors")
async def test_r11_an_autoscaled_object_takes_few_writes(proxy, crowd, team, bar):
    """To make it two more than a plain one; at rest its status is written once a minute, however figures change."""
    await asyncio.to_thread(team.apply, "stopped", autoscaling=AUTOSCALING, replicas=0)
    await team.sees(team.registered, lambda seen: seen is not None)
    await asyncio.to_thread(settled, proxy)
    before = len(proxy.writes)
    await asyncio.to_thread(team.apply, autoscaling=AUTOSCALING)
    await team.sees(team.scaling, becomes("MetricsFound"))
    made = await settled_writes(proxy, before)

    before, crowd.load = len(proxy.writes), 24
    await team.sees(team.ready, becomes("3/3"))
    scaled = await settled_writes(proxy, before)

    before, began, figures = len(proxy.writes), time.monotonic(), []

    def changes():
        """How often the autoscaler has found another figure; there is another one after each."""
        found = team.get("horizontalpodautoscaler", "chat")["status"]["currentMetrics"]
        if not figures or figures[-1] != found:
            figures.append(found)
            crowd.load, crowd.pace = 24 - 4 * (len(figures) % 2), 100 * (len(figures) % 2)
        return len(figures)

    await team.sees(changes, lambda count: count >= CHANGES, 2 * DEADLINE)
    rest, seconds = await settled_writes(proxy, before), time.monotonic() - began
    bar("R11 autoscaled", create=len(made), scale=len(scaled), rest_writes=len(rest), rest_seconds=seconds)
    # Where pods come slowly one after the other, a status may be told between them.
    assert len(made) <= 10, made  # the autoscaler, and what it found
    assert len(scaled) <= 8, scaled  # a disruption budget that comes with the second replica, and what gateways know
    assert len(rest) <= 1 + seconds / 60, rest
    assert {*rest} <= {"llmdeployments/chat/status"}


@pytest.mark.usefixtures("operator", "doors")
@pytest.mark.parametrize("crowd", [Ranks], indirect=True)
async def test_a_group_of_pods_is_one_replica_to_the_autoscaler(crowd, team):
    sharding = {"tensorParallel": 2, "pods": 2}
    await asyncio.to_thread(team.apply, autoscaling=AUTOSCALING, sharding=sharding)
    await team.sees(team.scaling, becomes("MetricsFound"))
    crowd.load = 16
    status = await team.sees(team.status, lambda seen: seen.get("ready") == "2/2")
    told = [one["reason"] for one in status["decisions"] if one["kind"] == "Scale"]
    assert any("; HPA: RequestsInFlight 16 over 8 per replica" in one for one in told), told
    assert sorted(crowd.replicas) == ["chat-r1-0-0", "chat-r1-0-1", "chat-r1-1-0", "chat-r1-1-1"]
    crowd.load = 1
    await team.sees(team.ready, becomes("1/1"))


@pytest.mark.usefixtures("operator")
def test_scale_reaches_the_workload(team, api, namespace, bar):
    """R12. Whoever writes: an autoscaler goes the same way."""
    team.apply()
    path = f"/apis/moorage.dev/v1alpha1/namespaces/{namespace}/llmdeployments/chat/scale"
    workload = f"/apis/apps/v1/namespaces/{namespace}/deployments/chat-r1"
    team.eventually(lambda: team.kubectl.run("get", "--raw", workload).returncode, lambda code: code == 0)
    took = []
    for number in range(SCALES):
        wanted = 2 + number % 2
        began = time.monotonic()
        api("PATCH", path, {"spec": {"replicas": wanted}}, "application/merge-patch+json")
        while api("GET", workload)["spec"]["replicas"] != wanted:
            assert time.monotonic() - began < DEADLINE
        took.append(time.monotonic() - began)
    took.sort()
    bar("R12", p50_s=round(took[len(took) // 2], 3), p99_s=round(took[-2], 3), scales=SCALES)
