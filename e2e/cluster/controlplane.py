"""etcd, kube-apiserver and kube-controller-manager: the part of Kubernetes that decides, without a machine to run pods.

`control_plane` starts these three alone, on free loopback ports, without root: all that an integration test needs. The
local provider starts them with the same flags inside a namespace and adds a node.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from e2e.cluster import kubeconfig, pki
from e2e.cluster.api import Api
from e2e.cluster.binary import Binaries, ensure_binaries
from e2e.cluster.command import which
from e2e.cluster.pki import Authority, KeyPair
from e2e.cluster.processes import Supervisor
from e2e.cluster.progress import Progress
from e2e.cluster.provider import ClusterError

SERVICE_RANGE: Final = "10.96.0.0/16"
SERVICE_ADDRESS: Final = "10.96.0.1"
POD_RANGE: Final = "10.244.0.0/16"
QUICKLY: Final = "2s"
"""How often autoscalers look where a test waits for them; every 15 s by default."""
SYNC_VARIABLE: Final = "MOORAGE_AUTOSCALER_SYNC"
"""How often they look in a cluster of the local provider that comes up, such as `15s`."""
_LOOPBACK: Final = "127.0.0.1"
_READY_DEADLINE: Final = 90.0
_ATTEMPTS: Final = 3


@dataclass(frozen=True)
class Listen:
    """Where the control plane listens and what it announces."""

    port: int = 6443
    etcd_port: int = 2379
    etcd_peer_port: int = 2380
    address: str = "0.0.0.0"
    advertise: str | None = None
    """The address that pods reach it by, behind the Service `kubernetes`; None when there are no pods."""

    @property
    def url(self) -> str:
        """The API server, asked from where it runs."""
        return f"https://{_LOOPBACK}:{self.port}"

    @property
    def etcd(self) -> str:
        """The address of etcd for its clients."""
        return f"http://{_LOOPBACK}:{self.etcd_port}"


@dataclass(frozen=True)
class Credentials:
    """The certificates of a control plane, and who is who: an authority signs, each part has a key of its own."""

    authority: Authority
    admin: KeyPair
    server: KeyPair
    controllers: KeyPair
    kubelet_client: KeyPair
    front_proxy: KeyPair
    token_key: Path
    token_public_key: Path

    @classmethod
    def create(cls, folder: Path, addresses: tuple[str, ...] = ()) -> "Credentials":
        """Make them all in a new folder. `addresses`: further ones that the server answers on, `IP:192.0.2.1`."""
        authority = Authority(folder)
        authority.create()
        service = [f"DNS:kubernetes{rest}" for rest in ("", ".default", ".default.svc", ".default.svc.cluster.local")]
        names = ("DNS:localhost", f"IP:{_LOOPBACK}", f"IP:{SERVICE_ADDRESS}", *service, *addresses)
        private, public = authority.signing_key("service-accounts")
        return cls(
            authority=authority,
            admin=authority.issue("admin", "/O=system:masters/CN=admin"),
            server=authority.issue("apiserver", "/CN=kube-apiserver", names),
            controllers=authority.issue("controller-manager", "/CN=system:kube-controller-manager"),
            kubelet_client=authority.issue("apiserver-kubelet", "/O=system:masters/CN=apiserver-kubelet"),
            front_proxy=authority.issue("front-proxy", "/CN=front-proxy"),
            token_key=private,
            token_public_key=public,
        )


@dataclass(frozen=True)
class ControlPlane:
    """A control plane that answers."""

    directory: Path
    kubeconfig: Path
    """The administrator's configuration."""
    url: str
    binaries: Path
    """A folder with `kubectl` and `helm`."""


def autoscaler_sync() -> str:
    """Return how often autoscalers look in a cluster that pods run in."""
    return os.environ.get(SYNC_VARIABLE) or QUICKLY


@contextmanager
def control_plane(
    directory: Path, progress: Progress | None = None, *, autoscaler_sync: str = QUICKLY
) -> Iterator[ControlPlane]:
    """Run a control plane on free loopback ports for as long as the context lasts.

    Args:
        directory: A folder for its data and logs, which may exist but holds no other control plane.
        progress: Where to say what takes long: the binary is built when it is not there yet.
        autoscaler_sync: How often autoscalers look, such as `15s`.

    Raises:
        ClusterError: something is missing on this machine, or a part does not come up.
    """
    if (message := pki.obstacle()) is not None:
        raise ClusterError(message)
    binaries = ensure_binaries(progress or Progress())
    credentials = Credentials.create(directory / "pki")
    supervisor = Supervisor(directory, tied_to_this_process())
    try:
        listen = _start_on_free_ports(supervisor, binaries, credentials, autoscaler_sync)
        certificate = credentials.authority.pair.certificate
        config = kubeconfig.write(directory / "kubeconfig", listen.url, certificate, credentials.admin)
        yield ControlPlane(directory, config, listen.url, binaries.folder)
    finally:
        supervisor.stop()


def _start_on_free_ports(
    supervisor: Supervisor, binaries: Binaries, credentials: Credentials, autoscaler_sync: str
) -> Listen:
    """Start on ports that were free a moment ago, and once more on others when somebody else took one meanwhile."""
    certificate = credentials.authority.pair.certificate
    for attempt in range(1, _ATTEMPTS + 1):
        port, etcd_port, etcd_peer_port = _free_ports(3)
        listen = Listen(port, etcd_port, etcd_peer_port, address=_LOOPBACK)
        try:
            api = Api(listen.url, certificate, credentials.admin)
            start(supervisor, binaries, credentials, listen, api, autoscaler_sync=autoscaler_sync)
        except ClusterError as error:
            supervisor.stop()
            if attempt == _ATTEMPTS or "address already in use" not in str(error):
                raise
        else:
            return listen
    raise AssertionError  # the last attempt returns or raises


def start(
    supervisor: Supervisor,
    binaries: Binaries,
    credentials: Credentials,
    listen: Listen,
    api: Api,
    *,
    autoscaler_sync: str = QUICKLY,
) -> None:
    """Start the three parts and return once the API server is ready.

    Args:
        supervisor: Starts the processes.
        binaries: What they run.
        credentials: What they know one another by.
        listen: Where they listen.
        api: How the API server is reached from this process, to see that it is ready.
        autoscaler_sync: How often autoscalers look.

    Raises:
        ClusterError: a part ended or is not ready in time.
    """
    supervisor.start("etcd", etcd_command(binaries, supervisor.folder, listen))
    supervisor.start("kube-apiserver", apiserver_command(binaries, credentials, listen))
    certificate = credentials.authority.pair.certificate
    config = kubeconfig.write(
        supervisor.folder / "controller-manager.kubeconfig", listen.url, certificate, credentials.controllers
    )
    supervisor.wait("kube-apiserver", api.ready, "being ready", _READY_DEADLINE)
    supervisor.start("kube-controller-manager", controllers_command(binaries, credentials, config, autoscaler_sync))


def etcd_command(binaries: Binaries, folder: Path, listen: Listen) -> list[str]:
    """Return the command of etcd. It does not wait for the disk: the data is worth nothing after a crash."""
    peer = f"http://{_LOOPBACK}:{listen.etcd_peer_port}"
    return [
        binaries["etcd"],
        f"--data-dir={folder / 'etcd'}",
        "--unsafe-no-fsync",
        f"--listen-client-urls={listen.etcd}",
        f"--advertise-client-urls={listen.etcd}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--log-level=warn",
    ]


def apiserver_command(binaries: Binaries, credentials: Credentials, listen: Listen) -> list[str]:
    """Return the command of kube-apiserver, with RBAC, node restriction and API aggregation as in any real cluster."""
    certificate = credentials.authority.pair.certificate
    if listen.advertise:
        announce = [f"--advertise-address={listen.advertise}"]
    else:  # a loopback address is refused as an endpoint of the Service `kubernetes`, and nobody would use it
        announce = [f"--advertise-address={listen.address}", "--endpoint-reconciler-type=none"]
    return [
        binaries["kube-apiserver"],
        f"--etcd-servers={listen.etcd}",
        f"--bind-address={listen.address}",
        f"--secure-port={listen.port}",
        *announce,
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        f"--client-ca-file={certificate}",
        f"--tls-cert-file={credentials.server.certificate}",
        f"--tls-private-key-file={credentials.server.key}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-signing-key-file={credentials.token_key}",
        f"--service-account-key-file={credentials.token_public_key}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged",
        "--kubelet-preferred-address-types=InternalIP",
        f"--kubelet-client-certificate={credentials.kubelet_client.certificate}",
        f"--kubelet-client-key={credentials.kubelet_client.key}",
        f"--kubelet-certificate-authority={certificate}",
        f"--requestheader-client-ca-file={certificate}",
        "--requestheader-allowed-names=front-proxy",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={credentials.front_proxy.certificate}",
        f"--proxy-client-key-file={credentials.front_proxy.key}",
        # Requests to aggregated APIs go to pods, not to a Service address: it works without kube-proxy as well.
        "--enable-aggregator-routing",
    ]


def controllers_command(
    binaries: Binaries, credentials: Credentials, config: Path, autoscaler_sync: str = QUICKLY
) -> list[str]:
    """Return the command of kube-controller-manager, with an autoscaler that acts within seconds, as tests want it."""
    authority = credentials.authority.pair
    return [
        binaries["kube-controller-manager"],
        f"--kubeconfig={config}",
        "--secure-port=0",
        "--leader-elect=false",
        "--use-service-account-credentials",
        f"--service-account-private-key-file={credentials.token_key}",
        f"--root-ca-file={authority.certificate}",
        f"--cluster-signing-cert-file={authority.certificate}",
        f"--cluster-signing-key-file={authority.key}",
        "--allocate-node-cidrs",
        f"--cluster-cidr={POD_RANGE}",
        # One machine runs everything: without these its own client's throttle would be the slowest part.
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        "--concurrent-replicaset-syncs=20",
        f"--horizontal-pod-autoscaler-sync-period={autoscaler_sync}",
        "--horizontal-pod-autoscaler-initial-readiness-delay=5s",
    ]


def scheduler_command(binaries: Binaries, config: Path) -> list[str]:
    """Return the command of kube-scheduler, which only a control plane with nodes needs."""
    return [
        binaries["kube-scheduler"],
        f"--kubeconfig={config}",
        "--secure-port=0",
        "--leader-elect=false",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    ]


def tied_to_this_process() -> tuple[str, ...]:
    """Return what, put before a command, makes the kernel end it when this process is killed."""
    return ("setpriv", "--pdeathsig", "SIGKILL") if which("setpriv") else ()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server((_LOOPBACK, 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports
