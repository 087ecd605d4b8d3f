"""Autoscaling as a whole: the operator with the chart's rights, a real gateway, the API server's own autoscaler.

Replicas and kubelet are the test itself: each pod becomes a replica that tells what the test says of its load.
"""

import asyncio
import contextlib
import json
import socket
import subprocess
import time

import aiohttp
import pytest
import yaml

from moorage_api import names
from moorage_operator.plan.metrics_api import NAME, OF_THE_GROUP
from tests.integration.gateway_kit import DEADLINE, Cluster, Gateway, Replica, free_port, until
from tests.integration.operator_kit import READY, Kubelet, Operator, Proxy, is_ready
from tests.integration.team_kit import Team
from tests.integration.test_custom_metrics import service

OLD = OF_THE_GROUP[0]
AUTOSCALING = {
    "maxReplicas": 3,
    "targets": [{"metric": "RequestsInFlight", "averageValue": "8"}],
    "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
}
SYNCS = 5
"""Looks of an autoscaler that finds nothing, after which it is certain that it holds."""
SCALES = 100


@pytest.fixture
def address():
    """Where the API server finds this machine: it refuses loopback addresses of Services."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("203.0.113.1", 9))  # no packet is sent
        return probe.getsockname()[0]


@pytest.fixture
async def http():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE)) as session:
        yield session


@pytest.fixture
def rights_of_the_cluster(plane, kubectl, namespace, checkout):
    """The chart's rules for an operator of the whole cluster; returns who has them."""
    command = [plane.binaries / "helm", "template", "moorage", checkout / "charts/moorage", f"--namespace={namespace}"]
    options = ["--set=crds.install=false", "--kube-version=1.34.0"]
    rendered = subprocess.run([*command, *options], capture_output=True, text=True, check=True, timeout=60).stdout
    kinds = {"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}
    rules = [one for one in yaml.safe_load_all(rendered) if one and one["kind"] in kinds]
    ours = [one for one in rules if one["metadata"]["name"].startswith("moorage-operator")]
    kubectl("apply", "--filename=-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": ours}))
    yield f"system:serviceaccount:{namespace}:moorage-operator"
    kubectl("delete", "clusterrole,clusterrolebinding", "moorage-operator", "--ignore-not-found")


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
        for each in service(self.cluster.namespace, self.address, self.port):
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
    """Makes a replica of each pod, and gives all of them together so many requests."""

    def __init__(self, api, namespace):
        self.kubelet, self.load, self.replicas, self.fewest = Kubelet(api, namespace), 0, {}, None

    async def tend(self):
        while True:
            pods = await asyncio.to_thread(self.kubelet.pods, f"{names.RANK_LABEL}=0")
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
            replica.telemetry = {"running": part, "waiting": 0}


@pytest.fixture
async def crowd(api, namespace):
    crowd = Crowd(api, namespace)
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

    async def sees(self, look, accept):
        return await until(lambda: asyncio.to_thread(look), accept)

    def scaling(self, name="chat"):
        conditions = {one["type"]: one for one in self.status(name).get("conditions", ())}
        return conditions.get("ScalingActive", {}).get("reason")

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


@pytest.mark.usefixtures("chat")
async def test_replicas_follow_the_load_and_never_fall_while_metrics_are_lost(doors, crowd, team, bar):
    crowd.load = 24
    status = await team.sees(team.status, lambda seen: seen.get("ready") == "3/3")
    told = [one["reason"] for one in status["decisions"] if one["kind"] == "Scale"]
    assert any("; HPA: RequestsInFlight 24 over 8 per replica" in one for one in told), told
    assert team.registered()["metadata"]["ownerReferences"][0]["kind"] == "ClusterRole"

    before = await asyncio.to_thread(team.failures)
    await doors.close()
    crowd.load, crowd.fewest = 1, None
    await team.sees(team.failures, lambda count: count >= before + SYNCS)
    bar("R21", fewest_of_3_while_metrics_were_lost=crowd.fewest, looks=SYNCS)
    assert crowd.fewest == 3

    await doors.open()
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
    assert took[-2] <= 1.0
