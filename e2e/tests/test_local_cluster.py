"""The local provider for real: it comes up, repairs itself, and leaves nothing behind, whenever it was killed."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from e2e.cluster.binary import ensure_binaries
from e2e.cluster.images.layout import Layout
from e2e.cluster.local import LocalProvider
from e2e.cluster.local.place import Place
from e2e.cluster.paths import REPOSITORY
from e2e.cluster.processes import identify
from e2e.cluster.progress import Progress
from e2e.cluster.provider import ClusterError, Image

pytestmark = pytest.mark.e2e

DEADLINE = 120.0
QUIET = Progress(quiet=True)


@pytest.fixture(scope="session", autouse=True)
def _possible_here():
    if (obstacle := LocalProvider("moorage").obstacle()) is not None:
        pytest.skip(f"the local provider cannot work here: {obstacle}")


@pytest.fixture
def mark(tmp_path, monkeypatch):
    """A mark in the environment of everything that a test starts; the state folder is the test's own."""
    value = secrets.token_hex(8)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("MOORAGE_TEST_MARK", value)
    return value


@pytest.fixture
def cluster(mark):
    provider = LocalProvider(f"t-{secrets.token_hex(3)}")
    yield provider
    provider.down(QUIET)
    assert leftovers(provider.name, mark) == []


def leftovers(name: str, mark: str) -> list[str]:
    """Look for traces of a cluster everywhere but where the tool itself looks."""
    found = [f"process {pid}: {command}" for pid, command in _processes(name, mark)]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found += [f"mount {line}" for line in mounts if name in line]
    found += [str(path) for path in Path("/run/netns").glob("*") if name in path.name]
    found += [str(path) for path in Path("/sys/fs/cgroup").glob("*/*") if name in path.name]
    links = subprocess.run(["ip", "-oneline", "link"], capture_output=True, text=True, check=True).stdout
    found += [line for line in links.splitlines() if "cni0" in line or "node0" in line]
    rules = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout
    found += [line for line in rules.splitlines() if "KUBE-" in line or "CNI-" in line]
    clusters = Place(name).folder.parent
    return found + [str(path) for path in clusters.glob("*")]


def _processes(name: str, mark: str) -> list[tuple[int, str]]:
    """Processes with the mark in their environment (all but those in containers) or in a control group of the name."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid() or identify(int(entry.name)) is None:
            continue
        try:
            marked = mark.encode() in (entry / "environ").read_bytes()
            if marked or f"moorage-{name}" in (entry / "cgroup").read_text():
                found.append((int(entry.name), (entry / "cmdline").read_text().replace("\0", " ")))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def kubectl(cluster: LocalProvider, *arguments: str, text: str | None = None) -> str:
    argv = [cluster.binaries / "kubectl", "--kubeconfig", cluster.kubeconfig, *arguments]
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def until(condition):
    """Wait for a condition, for at most the deadline; returns its true value."""
    end = time.monotonic() + DEADLINE
    while not (value := condition()):
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.02)
    return value


def program_pod(name: str, *command: str) -> dict:
    """A pod that runs the one binary, which the tests load as an image."""
    container = {
        "name": "main",
        "image": "moorage/hyperkube:test",
        "imagePullPolicy": "Never",
        "command": ["/hyperkube", *command],
        "volumeMounts": [{"name": "config", "mountPath": "/config"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "containers": [container],
            "volumes": [{"name": "config", "configMap": {"name": "config"}}],
        },
    }


def in_pod_config() -> dict:
    """A configuration for a pod that finds the API server by name, with the pod's own token."""
    account = "/var/run/secrets/kubernetes.io/serviceaccount"
    server = {"server": "https://kubernetes.default.svc", "certificate-authority": f"{account}/ca.crt"}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": server}],
        "users": [{"name": "u", "user": {"tokenFile": f"{account}/token"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }
    data = {"kubeconfig": json.dumps(config)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "config"}, "data": data}


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    folder = tmp_path_factory.mktemp("image")
    Layout(folder).add_program("docker.io/moorage/hyperkube:test", ensure_binaries(QUIET).hyperkube)
    return Image("moorage/hyperkube:test", folder)


def apply(cluster: LocalProvider, *objects: dict) -> None:
    kubectl(cluster, "apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))


def phase(cluster: LocalProvider, pod: str) -> str:
    return kubectl(cluster, "get", "pod", pod, "-o", "jsonpath={.status.phase}")


def test_a_pod_finds_the_api_server_by_name_and_nothing_is_left_afterwards(cluster, image):
    cluster.up(QUIET)
    cluster.load_images([image], QUIET)
    asks = program_pod("asks", "kubectl", "--kubeconfig=/config/kubeconfig", "get", "--raw=/version")
    stays = program_pod("stays", "kubectl", "--kubeconfig=/config/kubeconfig", "proxy", "--address=0.0.0.0")
    stays["metadata"]["labels"] = {"app": "stays"}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "stays"},
        "spec": {"selector": {"app": "stays"}, "ports": [{"port": 80, "targetPort": 8001}]},
    }
    apply(cluster, in_pod_config(), asks, stays, service)
    until(lambda: phase(cluster, "asks") == "Succeeded")
    assert json.loads(kubectl(cluster, "logs", "asks"))["gitVersion"] == "v1.34.4"
    until(lambda: phase(cluster, "stays") == "Running")
    with cluster.forward("default", "stays", 80) as endpoint:
        # `kubectl proxy` refuses a host that is not its own: its refusal is an answer through Service and forwarder.
        answer = until(lambda: _first_line(endpoint.host, endpoint.port))
    assert answer == "HTTP/1.1 403 Forbidden"


def _first_line(host: str, port: int) -> str:
    request = "GET /version HTTP/1.1\r\nHost: elsewhere\r\nConnection: close\r\n\r\n"
    with socket.create_connection((host, port), timeout=5) as connection:
        connection.sendall(request.encode())
        return connection.makefile().readline().strip()


def test_up_again_changes_nothing(cluster):
    cluster.up(QUIET)
    before = Place(cluster.name).supervisor.recorded()
    cluster.up(QUIET)
    assert Place(cluster.name).supervisor.recorded() == before
    assert cluster.status().state == "running"


@pytest.mark.parametrize("process", ["etcd", "containerd"])
def test_up_repairs_a_cluster_that_lost_a_process(cluster, process):
    cluster.up(QUIET)
    os.kill(Place(cluster.name).supervisor.recorded()[process].pid, signal.SIGKILL)
    # Where etcd has gone the API server may be missed before it is.
    status = until(lambda: s if (s := cluster.status()).reason == f"{process} ended" else None)
    assert status.state == "broken"
    cluster.up(QUIET)
    assert cluster.status().state == "running"


@pytest.mark.parametrize(
    ("reached", "then"),
    [
        ("pki", "down"),
        ("processes/containerd.json", "up"),
        ("processes/etcd.json", "down"),
        ("processes/kubelet.json", "up"),
    ],
)
def test_up_that_was_killed_is_recovered_from(cluster, reached, then):
    started = subprocess.Popen(
        [sys.executable, "-m", "e2e.cluster", "up", "--name", cluster.name, "--provider", "local"],
        cwd=REPOSITORY,
        stderr=subprocess.DEVNULL,
    )
    with started:
        until((Place(cluster.name).folder / reached).exists)
        started.kill()
    assert cluster.status().state == "broken"
    if then == "up":
        cluster.up(QUIET)
        assert cluster.status().state == "running"
    # The fixture takes it down and looks for what is left.


def test_two_clusters_do_not_touch_each_other(cluster, image):
    other = LocalProvider(f"{cluster.name}-2")
    stays = program_pod("stays", "kubectl", "--kubeconfig=/config/kubeconfig", "proxy")
    try:
        for each in (cluster, other):
            each.up(QUIET)
            each.load_images([image], QUIET)
            apply(each, in_pod_config(), stays)
        for each in (cluster, other):
            until(lambda each=each: phase(each, "stays") == "Running")
            assert kubectl(each, "get", "nodes", "-o", "name").split() == [f"node/{each.name}"]
    finally:
        other.down(QUIET)
    assert other.status().state == "absent"
    assert cluster.status().state == "running"
    assert phase(cluster, "stays") == "Running"
    pod = json.loads(kubectl(cluster, "get", "pod", "stays", "-o", "json"))
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0


def test_what_needs_a_cluster_says_that_there_is_none(cluster):
    with pytest.raises(ClusterError, match="is not up: there is nothing of it; run `up` first"):
        cluster.inside(["true"])
    cluster.down(QUIET)  # and removing nothing is no error
