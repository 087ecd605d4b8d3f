"""An autoscaler's question on its whole way: the aggregator, TLS, one gateway, and what another one told it."""

import asyncio
import base64
import json
import ssl

import pytest

from moorage_api import names
from tests.integration.api_kit import admin
from tests.integration.gateway_kit import (
    Cluster,
    Gateway,
    Replica,
    free_port,
    metrics_service,
    until,
)
from tests.integration.loopback import own_addresses

ROOT = "/apis/custom.metrics.k8s.io/v1beta2"
_addresses = own_addresses(79)
ASLEEP = {"Accepted": True, "Available": True}


@pytest.fixture
def cluster(kubectl, namespace):
    return Cluster(kubectl, namespace)


@pytest.fixture
async def replicas(cluster):
    """Two of the model `chat`, each with three requests that it computes and one that waits."""
    await cluster.model("chat", {1: 100})
    await cluster.model("sleepy", {1: 100})
    await cluster.status("sleepy", {1: 100}, "ScaledToZero", "Nobody asks.", **ASLEEP)
    found = [Replica(), Replica()]
    for each in found:
        each.telemetry = {"running": 3, "waiting": 1, "kvCacheUtilization": 0.125}
        await each.start()
        await cluster.pod("chat", 1, each, node="")
    yield found
    for each in found:
        await each.stop()


@pytest.fixture
async def gateways(cluster, address, http, kubeconfig, replicas):
    """One that the API server asks, and another whose figures count as well."""
    port, other = free_port(), next(_addresses)
    environ = {"MOORAGE_KUBECONFIG": str(kubeconfig), "MOORAGE_NAMESPACE": cluster.namespace}
    started = []
    for name, host, more in (("one", address, [f"--metrics-port={port}"]), ("two", other, [])):
        labels = {names.NAME_LABEL: names.GATEWAY}
        flags = [*more, f"--pod-name={name}", f"--watch-namespace={cluster.namespace}"]
        internal = names.GATEWAY_INTERNAL_PORT
        started.append(await Gateway.start(http, *flags, host=host, internal=internal, **environ))
        await cluster.labelled_pod(name, labels, host)
    started[0].metrics_port = port
    yield started
    for each in started:
        await each.end()


async def certificate(gateway):
    """Once it serves metrics."""

    async def told():
        return json.loads((await gateway.get("/telemetry", internal=True))[1]).get("certificate")

    return await until(told)


def api_service(namespace, pem):
    return {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": f"{names.METRICS_VERSION}.{names.METRICS_GROUP}"},
        "spec": {
            "group": names.METRICS_GROUP,
            "version": names.METRICS_VERSION,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "caBundle": base64.b64encode(pem.encode()).decode(),
            "service": {"namespace": namespace, "name": names.GATEWAY_METRICS, "port": 443},
        },
    }


@pytest.fixture
async def registered(cluster, gateways, address):
    """The API as the operator registers it, with the certificate that the gateway tells."""
    pem = await certificate(gateways[0])
    api = api_service(cluster.namespace, pem)
    for each in (*metrics_service(cluster.namespace, address, gateways[0].metrics_port), api):
        await cluster.create(each)
    yield api
    await cluster.remove("apiservice", api["metadata"]["name"])


@pytest.fixture
def ask(registered, kubectl, namespace):
    """What the API server answers about a metric of a model: its value, or its error."""

    async def get(metric, name="chat", *options):
        path = f"{ROOT}/namespaces/{namespace}/llmdeployments.moorage.dev/{name}/{metric}"
        done = await asyncio.to_thread(kubectl.run, "get", "--raw", path, *options)
        if done.returncode:
            return done.stderr
        (item,) = json.loads(done.stdout)["items"]
        assert (item["describedObject"]["name"], item["metric"]["name"]) == (name, metric)
        return item["value"]

    return get


async def test_the_api_server_answers_with_what_all_gateways_know(ask, gateways, replicas, kubectl):
    await until(lambda: ask("RequestsInFlight"), "8".__eq__)
    assert await ask("QueueDepth") == "2"
    assert await ask("KVCacheUtilization") == "25"
    assert "2 of 2 replicas have told no such figure lately" in await ask("GPUUtilization")
    listed = json.loads(await asyncio.to_thread(kubectl, "get", "--raw", ROOT))
    assert "llmdeployments.moorage.dev/RequestsInFlight" in {each["name"] for each in listed["resources"]}

    # A request that only the other gateway knows of, and one that waits there for a model without a replica.
    for each in replicas:
        each.telemetry = {"running": 0, "waiting": 0}
        each.release.clear()
    streams = [asyncio.create_task(gateways[1].ask(name)) for name in ("chat", "chat", "chat", "sleepy")]
    await until(lambda: ask("RequestsInFlight"), "3".__eq__)
    await until(lambda: ask("RequestsInFlight", "sleepy"), "1".__eq__)
    assert await ask("QueueDepth", "sleepy") == "1"
    for each in streams:
        each.cancel()
    await asyncio.gather(*streams, return_exceptions=True)
    await until(lambda: ask("RequestsInFlight", "sleepy"), "0".__eq__)


async def test_only_the_api_server_gets_an_answer_and_only_who_may_gets_it_from_there(
    ask, address, gateways, http, kubeconfig
):
    await until(lambda: ask("RequestsInFlight"), "8".__eq__)
    assert "Forbidden" in await ask("RequestsInFlight", "chat", "--as=somebody")
    url = f"https://{address}:{gateways[0].metrics_port}{ROOT}"
    async with http.get(url, ssl=False, headers={"x-remote-user": "admin", "x-remote-group": "system:masters"}) as said:
        assert said.status == 401
    _, tls = admin(kubeconfig)  # signed by the authority that signs the front proxy's, too
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    async with http.get(url, ssl=tls) as said:
        assert said.status == 401


async def test_an_autoscaler_follows_the_figure_and_holds_when_there_is_none(ask, cluster, replicas):
    status = {"replicas": 2, "selector": "moorage.dev/deployment=chat"}
    await cluster.kubectl(
        "patch",
        "llmdeployment",
        "chat",
        "--subresource=status",
        "--type=merge",
        f"--patch={json.dumps({'status': status})}",
    )
    await until(lambda: ask("RequestsInFlight"), "8".__eq__)
    await cluster.create(_autoscaler())

    async def wanted():
        return json.loads(await cluster.kubectl("get", "llmdeployment", "chat", "--output=json"))["spec"]["replicas"]

    await until(wanted, lambda number: number == 4)  # 8 requests, 2 for each
    replicas[0].telemetry = replicas[1].telemetry = {"running": 0}

    async def active():
        found = json.loads(await cluster.kubectl("get", "hpa", "chat", "--output=json"))["status"]["conditions"]
        return next(each["reason"] for each in found if each["type"] == "ScalingActive")

    await until(active, "FailedGetObjectMetric".__eq__)
    assert await wanted() == 4


def _autoscaler():
    target = {"apiVersion": names.API_VERSION, "kind": names.KIND, "name": "chat"}
    described = {
        "metric": {"name": "RequestsInFlight"},
        "describedObject": target,
        "target": {"type": "AverageValue", "averageValue": "2"},
    }
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "chat"},
        "spec": {
            "scaleTargetRef": target,
            "minReplicas": 1,
            "maxReplicas": 6,
            "metrics": [{"type": "Object", "object": described}],
        },
    }
