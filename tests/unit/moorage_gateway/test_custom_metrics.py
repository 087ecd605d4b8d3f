"""`custom.metrics.k8s.io` as the API server asks for it, over real TLS with real certificates."""

import asyncio
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from cryptography import x509

from e2e.cluster.pki import Authority
from moorage_gateway import certificate, table
from moorage_gateway.custom_metrics import CustomMetrics
from moorage_gateway.door import Door
from moorage_gateway.front_proxy import FrontProxy, Trust
from moorage_gateway.measure import METRICS, Unknown
from moorage_gateway.server import metrics_server
from moorage_gateway.settings import Settings
from moorage_gateway.signal import Signal
from moorage_gateway.table import Revision

ROOT = "/apis/custom.metrics.k8s.io/v1beta2"
CHAT = f"{ROOT}/namespaces/team-a/llmdeployments.moorage.dev/chat"
SERVICE = "moorage-gateway-metrics.moorage-system.svc"
DEADLINE = 20


@dataclass
class Signer:
    """Signs certificates of clients."""

    authority: Authority

    @property
    def pem(self):
        return self.authority.pair.certificate.read_text()

    def client(self, name):
        pair = self.authority.issue(name, f"/O=x/CN={name}")
        return pair.certificate, pair.key


@pytest.fixture(scope="module")
def new_signer(tmp_path_factory):
    def make():
        authority = Authority(tmp_path_factory.mktemp("authority") / "pki")
        authority.create()
        return Signer(authority)

    return make


@pytest.fixture(scope="module")
def authority(new_signer):
    return new_signer()


@pytest.fixture(scope="module")
def other(new_signer):
    return new_signer()


@dataclass
class Opened:
    """A door that is kept, and who comes to it."""

    trust: Trust
    door: Door
    changes: Signal
    servers: list

    @property
    def port(self):
        return self.servers[-1].servers[0].sockets[0].getsockname()[1]

    async def ask(self, path, client=None, method="GET", **params):
        """As the API server asks: by the Service's name, trusting the certificate that the door tells."""
        tls = ssl.create_default_context(cadata=self.door.certificate)
        if client is not None:
            tls.load_cert_chain(*client)
        url = f"https://127.0.0.1:{self.port}{path}"
        connector = aiohttp.TCPConnector(ssl=tls, force_close=True)
        timeout = aiohttp.ClientTimeout(total=DEADLINE)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.request(method, url, params=params, server_hostname=SERVICE) as answer,
        ):
            return answer.status, await answer.json()


class Figures:
    """What the gateways know."""

    def __init__(self):
        self.table, self.values = table.EMPTY, {}

    def figure(self, model, metric):
        return self.values.get((model.deployment, metric), Unknown("2 of 3 replicas are silent"))


@pytest.fixture
def figures(make_model):
    found = Figures()
    revision = Revision(1, 100, ())
    found.table = table.build(
        [
            make_model(revision, name="chat", labels=(("tier", "gold"),)),
            make_model(revision, name="code", labels=(("tier", "gold"),)),
            make_model(revision, name="smol", labels=(("tier", "tin"),)),
            make_model(revision, name="chat", namespace="team-b"),
        ]
    )
    found.values = {("chat", "RequestsInFlight"): 12.5, ("code", "RequestsInFlight"): 3, ("smol", "QueueDepth"): 0}
    return found


@pytest.fixture
async def keep(figures, limits, until):
    """Keep a door for whom `trust` admits: `await keep(trust)`; open when it has a certificate."""
    settings, tasks, kept = Settings(host="127.0.0.1"), [], []

    def open_(front_proxy, tls):
        app = CustomMetrics(front_proxy, lambda: figures.table, figures.figure)
        kept[-1].servers.append(metrics_server(app, settings, limits, tls))
        return kept[-1].servers[-1]

    def start(trust):
        changes = Signal()
        kept.append(Opened(trust, Door(trust, [SERVICE, "other.name"], open_, changes), changes, []))
        tasks.append(asyncio.create_task(kept[-1].door.run()))
        return kept[-1]

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def opened(keep, authority, until):
    trust = Trust()
    trust.now = FrontProxy(authority.pem, frozenset({"front-proxy"}))
    found = keep(trust)
    await until(lambda: found.door.certificate and found.servers[-1].started)
    return found


@pytest.fixture
def front_proxy(authority):
    return authority.client("front-proxy")


@pytest.fixture
def ask(opened, front_proxy):
    async def get(path, **params):
        return await opened.ask(path, front_proxy, **params)

    return get


async def test_discovery_names_every_metric(ask):
    status, found = await ask(ROOT)
    assert (status, found["kind"], found["apiVersion"]) == (200, "APIResourceList", "v1")
    assert found["groupVersion"] == "custom.metrics.k8s.io/v1beta2"
    assert {each["name"] for each in found["resources"]} == {f"llmdeployments.moorage.dev/{name}" for name in METRICS}
    assert {(each["namespaced"], each["kind"], tuple(each["verbs"])) for each in found["resources"]} == {
        (True, "MetricValueList", ("get",))
    }


async def test_one_object_is_a_list_of_one(ask):
    status, found = await ask(f"{CHAT}/RequestsInFlight", metricLabelSelector="")
    assert status == 200
    assert found.keys() == {"kind", "apiVersion", "metadata", "items"}
    assert (found["kind"], found["apiVersion"]) == ("MetricValueList", "custom.metrics.k8s.io/v1beta2")
    (item,) = found["items"]
    assert item.pop("timestamp").endswith("Z")
    assert item == {
        "describedObject": {
            "kind": "LLMDeployment",
            "namespace": "team-a",
            "name": "chat",
            "apiVersion": "moorage.dev/v1alpha1",
        },
        "metric": {"name": "RequestsInFlight", "selector": None},
        "value": "12500m",
    }


@pytest.mark.parametrize(
    ("selector", "found"),
    [("", ["chat", "code"]), ("tier=gold", ["chat", "code"]), ("tier=tin", []), ("tier notin (gold)", [])],
)
async def test_all_objects_are_those_of_the_namespace_that_are_selected_and_have_a_figure(ask, selector, found):
    path = f"{ROOT}/namespaces/team-a/llmdeployments.moorage.dev/%2A/RequestsInFlight"
    status, answer = await ask(path, labelSelector=selector)
    assert status == 200
    assert [item["describedObject"]["name"] for item in answer["items"]] == found


@pytest.mark.parametrize(
    ("path", "params", "code", "reason"),
    [
        (f"{CHAT}/QueueDepth", {}, 404, "NotFound"),  # no figure is no zero
        (f"{CHAT}/Latency", {}, 404, "NotFound"),
        (f"{CHAT}/RequestsInFlight", {"metricLabelSelector": "code=200"}, 404, "NotFound"),
        (f"{CHAT}/RequestsInFlight", {"metricLabelSelector": "code in"}, 400, "BadRequest"),
        (
            f"{ROOT}/namespaces/team-a/llmdeployments.moorage.dev/*/QueueDepth",
            {"labelSelector": ","},
            400,
            "BadRequest",
        ),
        (f"{ROOT}/namespaces/team-a/llmdeployments.moorage.dev/gone/QueueDepth", {}, 404, "NotFound"),
        (f"{ROOT}/namespaces/team-a/pods/chat/QueueDepth", {}, 404, "NotFound"),
        (f"{ROOT}/namespaces/team-a/metrics/QueueDepth", {}, 404, "NotFound"),
        (f"{ROOT}/namespaces/team-a/llmdeployments.moorage.dev/chat", {}, 404, "NotFound"),
        ("/apis", {}, 404, "NotFound"),
        ("/openapi/v2", {}, 404, "NotFound"),
        (f"{ROOT}x", {}, 404, "NotFound"),
    ],
)
async def test_errors_are_kubernetes_own(ask, path, params, code, reason):
    status, answer = await ask(path, **params)
    assert status == code
    assert answer.pop("message")
    assert answer == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "reason": reason,
        "code": code,
    }


async def test_a_missing_figure_says_why(ask):
    _, answer = await ask(f"{CHAT}/QueueDepth")
    assert answer["message"] == (
        "the server could not find the metric QueueDepth for llmdeployments.moorage.dev chat: "
        "2 of 3 replicas are silent"
    )


async def test_before_the_routes_are_read_nothing_is_known_but_what_there_is(ask, figures):
    figures.table = None
    assert (await ask(ROOT))[0] == 200
    status, answer = await ask(f"{CHAT}/RequestsInFlight")
    assert (status, answer["reason"]) == (503, "ServiceUnavailable")


async def test_nothing_can_be_written(opened, front_proxy):
    status, answer = await opened.ask(f"{CHAT}/RequestsInFlight", front_proxy, method="PUT")
    assert (status, answer["reason"]) == (405, "MethodNotAllowed")


async def test_who_shows_no_certificate_or_has_another_name_gets_nothing(opened, authority):
    for client in (None, authority.client("kubelet")):
        for path in (ROOT, f"{CHAT}/RequestsInFlight", "/x"):
            status, answer = await opened.ask(path, client)
            assert (status, answer["reason"]) == (401, "Unauthorized")


async def test_headers_make_nobody_the_api_server(opened, http):
    headers = {"x-remote-user": "system:kube-aggregator", "x-remote-group": "system:masters"}
    url = f"https://127.0.0.1:{opened.port}{CHAT}/RequestsInFlight"
    async with http.get(url, ssl=False, headers=headers) as answer:
        assert answer.status == 401


async def test_who_shows_a_certificate_of_another_authority_gets_no_connection(opened, other):
    with pytest.raises(aiohttp.ClientError):
        await opened.ask(ROOT, other.client("front-proxy"))


async def test_no_cleartext(opened, http):
    with pytest.raises(aiohttp.ClientError):
        await http.get(f"http://127.0.0.1:{opened.port}{ROOT}")


async def test_the_certificate_that_is_told_is_the_one_that_is_shown(opened):
    shown = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", opened.port))
    assert shown.split() == opened.door.certificate.split()
    assert "PRIVATE" not in opened.door.certificate


async def test_another_authority_opens_the_door_anew_and_nobody_stays_in(opened, authority, other, until):
    told, port = opened.door.certificate, opened.port
    before, after = authority.client("front-proxy"), other.client("front-proxy")
    tls = ssl.create_default_context(cadata=told)
    tls.load_cert_chain(*before)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=SERVICE)
    opened.trust.now = FrontProxy(other.pem, frozenset({"front-proxy"}))
    opened.trust.changes.tell()
    await until(lambda: len(opened.servers) == 2 and opened.servers[-1].started)
    async with asyncio.timeout(DEADLINE):
        assert await reader.read() == b""
    writer.close()
    assert opened.door.certificate == told  # who knows this gateway still does
    assert (await opened.ask(ROOT, after))[0] == 200
    with pytest.raises(aiohttp.ClientError):
        await opened.ask(ROOT, before)


async def test_the_door_is_shut_while_nobody_is_known(keep, authority, until):
    trust = Trust()
    found = keep(trust)
    await until(lambda: trust.changes.next._waiters)
    assert (found.door.certificate, found.servers) == ("", [])
    changed = found.changes.next
    trust.now = FrontProxy("no certificate", frozenset())
    trust.changes.tell()
    await until(lambda: trust.changes.next._waiters)
    assert found.door.certificate == ""
    trust.now = FrontProxy(authority.pem, frozenset())
    trust.changes.tell()
    await until(lambda: found.door.certificate and found.servers[-1].started)
    assert changed.is_set()
    assert (await found.ask(ROOT, authority.client("anybody")))[0] == 200
    trust.now = None
    trust.changes.tell()
    await until(lambda: not found.door.certificate)


async def test_a_certificate_is_renewed_in_time(keep, authority, until, monkeypatch):
    monkeypatch.setattr(certificate, "RENEW_SECONDS", 0.3)
    trust = Trust()
    trust.now = FrontProxy(authority.pem, frozenset())
    found, told = keep(trust), set()

    def renewed():
        told.add(found.door.certificate)
        return len(told - {""}) == 2

    await until(renewed)


def test_a_clock_that_is_behind_finds_the_certificate_good_and_it_outlives_its_renewal():
    made = x509.load_pem_x509_certificate(certificate.self_signed([SERVICE]).certificate.encode())
    now = datetime.now(UTC)
    assert made.not_valid_before_utc < now - timedelta(minutes=30)
    assert made.not_valid_after_utc > now + timedelta(seconds=certificate.RENEW_SECONDS, days=30)
