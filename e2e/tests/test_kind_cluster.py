"""The kind provider for real: one cluster from nothing, what pods of Moorage need of it, and nothing left behind."""

import json
import os
import secrets
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from e2e.cluster.binary import ensure_binaries
from e2e.cluster.images.layout import Layout
from e2e.cluster.kind import KindProvider
from e2e.cluster.kind.place import Place
from e2e.cluster.local import LocalProvider
from e2e.cluster.progress import Progress
from e2e.cluster.provider import Image

DEADLINE = 120.0
QUIET = Progress(quiet=True)
IMAGE = "moorage/hyperkube:kind-test"


@pytest.fixture(scope="module")
def mark(tmp_path_factory):
    """A mark in the environment of everything that is started here; the state folder is the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        value = secrets.token_hex(8)
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("kind")))
        patch.setenv("MOORAGE_TEST_MARK", value)
        yield value


@pytest.fixture(scope="module")
def cluster(mark, tmp_path_factory):
    provider = KindProvider(f"t-{secrets.token_hex(3)}")
    if (obstacle := provider.obstacle()) is not None:
        pytest.skip(f"kind cannot work here: {obstacle}")
    before = network_of_this_machine()
    provider.up(QUIET)
    yield provider
    folder = Place(provider.name).folder
    provider.down(QUIET)
    assert not folder.exists()
    assert leftovers(provider.name, mark) == []
    assert network_of_this_machine() == before


def network_of_this_machine() -> dict[str, list[str]]:
    """Links and rules, without the counters that change by themselves."""
    links = subprocess.run(["ip", "-json", "link"], capture_output=True, text=True, check=True).stdout
    rules = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout
    return {
        "links": sorted(link["ifname"] for link in json.loads(links)),
        "rules": [line for line in rules.splitlines() if line.startswith("-A")],
    }


def leftovers(name: str, mark: str) -> list[str]:
    """Look for traces of the cluster everywhere but where the provider itself looks."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return [
        *(f"mount {line}" for line in mounts if name in line),
        *(str(path) for path in Path("/run/netns").glob("*") if name in path.name),
        *(str(path) for path in Path("/sys/fs/cgroup").rglob("*") if name in path.name),
        *(f"process {pid}" for pid in processes(name, mark)),
    ]


def processes(name: str, mark: str) -> list[int]:
    """Processes with the mark in their environment, or below a control group of the cluster's name."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if mark.encode() in (entry / "environ").read_bytes() or name in (entry / "cgroup").read_text():
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def until(condition):
    """Wait for a condition, for at most the deadline; returns its true value."""
    end = time.monotonic() + DEADLINE
    while not (value := condition()):
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.05)
    return value


def kubectl(cluster: KindProvider, *arguments: str, text: str | None = None) -> str:
    argv = [cluster.binaries / "kubectl", "--kubeconfig", cluster.kubeconfig, *arguments]
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def apply(cluster: KindProvider, *objects: dict) -> None:
    kubectl(cluster, "apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))


def pod_status(cluster: KindProvider, pod: str) -> dict:
    return json.loads(kubectl(cluster, "get", "pod", pod, "--namespace=demo", "--output=json"))["status"]


def ended(cluster: KindProvider, pod: str) -> dict:
    """Wait for a pod's container to end; returns how it did."""
    containers = until(lambda: pod_status(cluster, pod).get("containerStatuses"))
    return until(
        lambda: pod_status(cluster, pod)["containerStatuses"][0]["state"].get("terminated") if containers else None
    )


def container(*command: str, memory: str = "256Mi") -> dict:
    """A container as Moorage's pods have it: nobody, no capability, nothing to write on but what is mounted."""
    return {
        "name": "main",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["/hyperkube", *command],
        "resources": {"requests": {"memory": "16Mi"}, "limits": {"memory": memory}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def pod(name: str, main: dict, init: dict | None = None) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "demo", "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "initContainers": [] if init is None else [{**init, "name": "init"}],
            "containers": [main],
            "volumes": [{"name": "data", "emptyDir": {"sizeLimit": "1Gi"}}],
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        },
    }


NAMESPACE = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": "demo", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
}
STORE = "http://store.demo.svc.cluster.local:2379"


@pytest.fixture(scope="module")
def store(cluster, tmp_path_factory):
    """An etcd behind a Service: it needs a writable volume, and answers HTTP on /version."""
    folder = tmp_path_factory.mktemp("image")
    Layout(folder).add_program(f"docker.io/{IMAGE}", ensure_binaries(QUIET).hyperkube)
    cluster.load_images([Image(IMAGE, folder)], QUIET)
    serve = ("etcd", "--data-dir=/data/etcd", "--listen-client-urls=http://0.0.0.0:2379")
    main = container(*serve, f"--advertise-client-urls={STORE}")
    main["readinessProbe"] = {"httpGet": {"path": "/health", "port": 2379}, "periodSeconds": 1}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "store", "namespace": "demo"},
        "spec": {"selector": {"app": "store"}, "ports": [{"port": 2379}]},
    }
    apply(cluster, NAMESPACE)
    apply(cluster, pod("store", main, init=container("kubectl", "version", "--client")), service)
    kubectl(cluster, "wait", "pod/store", "--namespace=demo", "--for=condition=Ready", f"--timeout={DEADLINE:.0f}s")


def test_a_pod_finds_a_service_by_its_name(cluster, store):
    apply(cluster, pod("asks", container("kubectl", f"--server={STORE}", "get", "--raw=/version")))
    assert ended(cluster, "asks")["exitCode"] == 0
    assert "etcdserver" in json.loads(kubectl(cluster, "logs", "asks", "--namespace=demo"))


def test_a_pod_that_fails_says_why_in_its_status(cluster, store):
    apply(cluster, pod("fails", container("no-such-component")))
    how = ended(cluster, "fails")
    assert how["exitCode"] == 2
    assert how["message"].startswith("usage: hyperkube COMPONENT")


def test_a_pod_with_too_little_memory_is_killed_for_it(cluster, store):
    apply(cluster, pod("starves", container("etcd", "--data-dir=/data/etcd", memory="16Mi")))
    assert ended(cluster, "starves")["reason"] == "OOMKilled"


def test_a_service_is_offered_on_this_machine(cluster, store):
    with cluster.forward("demo", "store", 2379) as endpoint:
        answer = until(lambda: fetch(f"{endpoint.url}/version"))
    assert "etcdserver" in json.loads(answer)


def fetch(url: str) -> bytes | None:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read()
    except OSError:
        return None


def test_a_command_inside_reaches_a_services_own_address(cluster, store):
    address = kubectl(cluster, "get", "service/store", "--namespace=demo", "--output=jsonpath={.spec.clusterIP}")
    argv = [str(cluster.binaries / "kubectl"), f"--server=http://{address}:2379", "get", "--raw=/version"]
    done = subprocess.run(cluster.inside(argv), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "etcdserver" in json.loads(done.stdout)


def test_the_logs_hold_what_the_node_says(cluster, store):
    logs = {path.name: path for path in cluster.logs()}
    assert "kubelet" in logs["journal.log"].read_text()


def test_up_again_changes_nothing(cluster):
    before = kubectl(cluster, "get", "node", "--output=jsonpath={.items[*].metadata.uid}")
    cluster.up(QUIET)
    assert kubectl(cluster, "get", "node", "--output=jsonpath={.items[*].metadata.uid}") == before


def test_a_local_cluster_of_the_same_name_is_another_one(cluster):
    local = LocalProvider(cluster.name)
    if (obstacle := local.obstacle()) is not None:
        pytest.skip(f"the local provider cannot work here: {obstacle}")
    try:
        local.up(QUIET)
        assert local.status().state == cluster.status().state == "running"
    finally:
        local.down(QUIET)
    assert local.status().state == "absent"
    assert cluster.status().state == "running"


def test_a_cluster_whose_engine_died_is_broken_and_can_be_removed(cluster):
    """The last one: the fixture takes down what is left of it, and looks for what that leaves."""
    engine = Place(cluster.name).own_engine
    if not engine.exists():
        pytest.skip("the cluster is on an engine that is not ours to kill")
    os.kill(engine.supervisor.recorded()["dockerd"].pid, signal.SIGKILL)
    status = until(lambda: s if (s := cluster.status()).state == "broken" else None)
    assert status.reason == "dockerd ended"
