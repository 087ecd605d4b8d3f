"""A real API server, etcd and controller manager for the whole session; a fresh namespace for each test.

Nothing is skipped: when the binary is not there yet it is built, and when it cannot be built these tests fail.
"""

import itertools
import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import kubernetes.client
import kubernetes.config
import pytest
import yaml

from e2e import waiting
from e2e.cluster.controlplane import ControlPlane, control_plane
from tests.integration.api_kit import Api
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
    """The chart's rules for the operator, in this namespace; returns who has them."""
    command = [plane.binaries / "helm", "template", "moorage", checkout / "charts/moorage", f"--namespace={namespace}"]
    options = ["--set=scope=namespace", "--set=crds.install=false", "--kube-version=1.34.0"]
    rendered = subprocess.run([*command, *options], capture_output=True, text=True, check=True, timeout=60).stdout
    rules = [one for one in yaml.safe_load_all(rendered) if one and one["kind"] in ("Role", "RoleBinding")]
    ours = [one for one in rules if one["metadata"]["name"].startswith("moorage-operator")]
    kubectl("apply", "--filename=-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": ours}))
    return f"system:serviceaccount:{namespace}:moorage-operator"


@pytest.fixture(scope="session")
def api(plane: ControlPlane) -> Iterator[Api]:
    """The same server, where hundreds of objects are asked for and watched."""
    api = Api(plane.kubeconfig)
    yield api
    api.close()


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
