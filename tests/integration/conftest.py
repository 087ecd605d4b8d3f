"""A real API server, etcd and controller manager for the whole session; a fresh namespace for each test.

Nothing is skipped: when the binary is not there yet it is built, and when it cannot be built these tests fail.
"""

import fcntl
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import kubernetes.client
import kubernetes.config
import pytest
import yaml

from e2e import waiting
from e2e.cluster.controlplane import ControlPlane, control_plane
from tests.integration.api_kit import Api
from tests.integration.gateway_kit import DEADLINE, own_address
from tests.integration.operator_kit import Operator, Proxy, StandIn
from tests.integration.slow_faults import SlowFaults
from tests.integration.team_kit import Team
from tests.integration.world_kit import World

CRD_NAME: Final = "llmdeployments.moorage.dev"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this folder, so that `-m 'not integration'` leaves it out."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.integration)


@dataclass(frozen=True)
class Kubectl:
    """kubectl, as a person at a terminal uses it."""

    plane: ControlPlane

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run it and return whatever comes; stderr is what the person reads when it is refused."""
        command = [str(self.plane.binaries / "kubectl"), f"--kubeconfig={self.plane.kubeconfig}", *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=120)

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """Run it and return what it prints; it must succeed."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def get(self, *arguments: str) -> Any:
        """Return `kubectl get` as JSON."""
        return json.loads(self("get", *arguments, "--output=json"))


@pytest.fixture(scope="session")
def bare_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The control plane as it comes up."""
    with control_plane(tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane


@pytest.fixture(scope="session")
def plane(bare_plane: ControlPlane, checkout: Path) -> ControlPlane:
    """The control plane with our CustomResourceDefinition installed, served and published for `kubectl explain`."""
    kubectl = Kubectl(bare_plane)
    kubectl("apply", "--server-side", f"--filename={checkout / 'crds'}")
    # `kubectl wait` ends on an error where it looks before there is any condition.
    waiting.eventually(lambda: _is_established(kubectl.get("crd", CRD_NAME)), bool, 30)
    published = ("get", "--raw", "/openapi/v3/apis/moorage.dev/v1alpha1")
    waiting.eventually(lambda: kubectl.run(*published).stdout, lambda text: "servedName" in text)
    return bare_plane


def _is_established(crd: Any) -> bool:
    conditions = crd["status"].get("conditions") or ()
    return any((one["type"], one["status"]) == ("Established", "True") for one in conditions)


@pytest.fixture(scope="session")
def kubeconfig(plane: ControlPlane) -> Path:
    """The administrator's configuration."""
    return plane.kubeconfig


@pytest.fixture(scope="session")
def kubectl(plane: ControlPlane) -> Kubectl:
    """kubectl of that control plane."""
    return Kubectl(plane)


@pytest.fixture(scope="session")
def api_client(plane: ControlPlane) -> Iterator[kubernetes.client.ApiClient]:
    """The official client, where a test makes many calls or reads an error's parts."""
    configuration = kubernetes.client.Configuration()
    kubernetes.config.load_kube_config(str(plane.kubeconfig), client_configuration=configuration)
    with kubernetes.client.ApiClient(configuration) as client:
        yield client


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Any]:
    """`eventually(look, accept, seconds)`: see `e2e.waiting`."""
    return waiting.eventually


_numbers = itertools.count(1)


@pytest.fixture
def namespace(kubectl: Kubectl) -> Iterator[str]:
    """A namespace of the test's own, with its default ServiceAccount."""
    name = f"test-{next(_numbers)}"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def rights(plane: ControlPlane, kubectl: Kubectl, namespace: str, checkout: Path) -> str:
    """The chart's rules for an operator of this namespace; returns who has them."""
    _allow(kubectl, _rendered(plane, checkout, namespace, "--set=scope=namespace"))
    return f"system:serviceaccount:{namespace}:moorage-operator"


@pytest.fixture
def rights_of_the_cluster(plane: ControlPlane, kubectl: Kubectl, namespace: str, checkout: Path) -> Iterator[str]:
    """The chart's rules for an operator of the whole cluster; returns who has them."""
    _allow(kubectl, _rendered(plane, checkout, namespace))
    yield f"system:serviceaccount:{namespace}:moorage-operator"
    kubectl("delete", "clusterrole,clusterrolebinding", "moorage-operator", "--ignore-not-found")


def _rendered(plane: ControlPlane, checkout: Path, namespace: str, *options: str) -> list[Any]:
    command = [plane.binaries / "helm", "template", "moorage", checkout / "charts/moorage", f"--namespace={namespace}"]
    always = ["--set=crds.install=false", "--kube-version=1.34.0"]
    done = subprocess.run([*command, *always, *options], capture_output=True, text=True, check=True, timeout=60)
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def _allow(kubectl: Kubectl, rendered: list[Any]) -> None:
    """Apply the operator's own rules of what the chart renders."""
    rules = [one for one in rendered if one["kind"].removeprefix("Cluster") in {"Role", "RoleBinding"}]
    ours = [one for one in rules if one["metadata"]["name"].startswith("moorage-operator")]
    kubectl("apply", "--filename=-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": ours}))


@pytest.fixture
def proxy(kubeconfig: Path) -> Iterator[Proxy]:
    """What stands between operator and API server, and sees what is written; with an administrator's rights."""
    proxy = Proxy(kubeconfig)
    yield proxy
    proxy.close()


@pytest.fixture
def chart_proxy(kubeconfig: Path, rights: str) -> Iterator[Proxy]:
    """The same with the chart's rights in the namespace, which have to suffice."""
    proxy = Proxy(kubeconfig, rights)
    yield proxy
    refused = list(proxy.refused)
    proxy.close()
    assert refused == [], "the chart gives too few rights"


@pytest.fixture
def operator_options() -> dict[str, Any]:
    """How the module's operators are started; modules have their own."""
    return {}


@pytest.fixture
def start_operator(
    proxy: Proxy, namespace: str, tmp_path: Path, operator_options: dict[str, Any]
) -> Iterator[Callable[..., Operator]]:
    """Starts operators, as often as a test wants: `start_operator(resync=1)`; they end with the test."""
    started = []

    def start(**how: Any) -> Operator:
        started.append(Operator(tmp_path, proxy.url, namespace, **operator_options, **how))
        return started[-1].start()

    yield start
    for operator in started:
        operator.stop()


@pytest.fixture
def operator(start_operator: Callable[..., Operator], eventually: Callable[..., Any]) -> Operator:
    """One that leads."""
    operator = start_operator()
    eventually(operator.leads, bool)
    return operator


@pytest.fixture
def gateways(team: Team) -> Iterator[list[StandIn]]:
    """Two stand-ins, that tell an operator what the test says."""
    opened = [StandIn(team, f"gateway-{letter}") for letter in "ab"]
    yield opened
    for gateway in opened:
        gateway.close()


@pytest.fixture
def address() -> Iterator[str]:
    """Where the API server finds what listens on this machine; for one test at a time, since ports there are fixed."""
    with (Path(tempfile.gettempdir()) / "moorage-tests-own-address.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield own_address()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that does not wait for ever."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE)) as session:
        yield session


@pytest.fixture(scope="session")
def api(plane: ControlPlane) -> Iterator[Api]:
    """The same server, where hundreds of objects are asked for and watched."""
    api = Api(plane.kubeconfig)
    yield api
    api.close()


@pytest.fixture
def moor(plane: ControlPlane, namespace: str) -> Callable[..., tuple[int, str, str]]:
    """`moor(*arguments)`, as a person in the namespace runs it -> status, stdout, stderr."""
    path = f"{plane.binaries}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "KUBECONFIG": str(plane.kubeconfig)}

    def run(*arguments: str, stdin: str | None = None) -> tuple[int, str, str]:
        command = [Path(sys.executable).with_name("moor"), *arguments, "-n", namespace]
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, check=False, timeout=120, env=environment
        )
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture
def team(kubectl: Kubectl, api: Api, namespace: str, eventually: Callable[..., Any]) -> Team:
    """Who works in the test's namespace."""
    return Team(kubectl, api, namespace, eventually)


@pytest.fixture(scope="session")
def new_world(api: Api, kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., World]:
    """Makes a namespace with an operator behind a proxy that faults are injected in: `with new_world() as world`."""

    def make(**how: Any) -> World:
        namespace = f"test-{next(_numbers)}"
        return World(api, kubeconfig, tmp_path_factory.mktemp(namespace), namespace, **how)

    return make


@pytest.fixture(scope="session")
def slow_faults(new_world: Callable[..., World]) -> Iterator[SlowFaults]:
    """Two faults that last a minute. Modules that take their time ask for them, so that they are over afterwards."""
    with SlowFaults.begin(new_world) as faults:
        yield faults
