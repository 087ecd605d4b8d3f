"""Bringing a cluster up, from an empty place to a node that is Ready."""

import json
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from e2e.cluster import controlplane, kubeconfig, packages
from e2e.cluster.api import Api
from e2e.cluster.binary import Binaries, ensure_binaries, kubernetes_version
from e2e.cluster.command import run, which
from e2e.cluster.controlplane import Credentials, Listen
from e2e.cluster.images import transfer
from e2e.cluster.local import dns, node
from e2e.cluster.local.netns import NODE_ADDRESS
from e2e.cluster.local.place import Place
from e2e.cluster.pki import KeyPair
from e2e.cluster.processes import Supervisor
from e2e.cluster.progress import Progress

_FORWARDER: Final = Path(__file__).with_name("forwarder.py")
_LOOPBACK: Final = "127.0.0.1"
_DEADLINE: Final = 90.0


def start(place: Place, progress: Progress) -> None:
    """Bring the cluster up; nothing of it is there yet.

    Raises:
        ClusterError: a program is missing, or a part does not come up; the message shows the end of its log.
    """
    packages.ensure(packages.NODE, progress)
    binaries = ensure_binaries(progress)
    place.folder.mkdir(parents=True, mode=0o700)
    place.binaries.symlink_to(binaries.folder)
    with progress.step("network, control group, certificates"):
        place.network.create()
        place.cgroup.create()
        credentials = Credentials.create(place.pki, (f"IP:{NODE_ADDRESS}",))
    _Starter(place, binaries, credentials, place.supervisor).run(progress)


def containerd_prefix(place: Place) -> tuple[str, ...]:
    """Return what to put before a command so that it sees containerd's private mounts."""
    pid = place.supervisor.recorded()["containerd"].pid
    return (which("nsenter") or "nsenter", f"--mount=/proc/{pid}/ns/mnt", "--")


def open_port(supervisor: Supervisor, name: str, host: str, port: int) -> int:
    """Offer an address of the cluster's network on a free port of this machine's loopback; returns that port."""
    with socket.create_server((_LOOPBACK, 0)) as listener:
        descriptor = listener.fileno()
        argv = [sys.executable, "-I", str(_FORWARDER), str(descriptor), host, str(port)]
        supervisor.start(name, argv, pass_fds=(descriptor,))
        return int(listener.getsockname()[1])


@dataclass(frozen=True)
class _Starter:
    """What the steps of one start share."""

    place: Place
    binaries: Binaries
    credentials: Credentials
    supervisor: Supervisor

    def run(self, progress: Progress) -> None:
        """Start everything, in the order in which the parts need one another."""
        with progress.step("containerd"):
            self._containerd()
        with progress.step("etcd, API server, controllers") as step:
            api = self._control_plane()
            step.result(kubernetes_version())
        with progress.step("scheduler, kubelet, kube-proxy, DNS"):
            self._node()
        with progress.step("node Ready") as step:
            self._wait(api)
            step.result(api.url)
        self.place.ready_mark.write_text(json.dumps({"url": api.url}))

    def _containerd(self) -> None:
        self.supervisor.start("containerd", node.containerd_command(self.place))
        ctr = [*containerd_prefix(self.place), which("ctr") or "ctr"]
        # The socket is asked for first: `ctr` waits for ten seconds where there is none yet.
        self.supervisor.wait("containerd", node.containerd_socket(self.place).exists, "listening", _DEADLINE)
        pause = transfer.pause_layout(self.place.folder / "pause", node.PAUSE_IMAGE, self.binaries.folder / "pause")
        transfer.load(pause, [node.PAUSE_IMAGE], ctr, Progress(quiet=True))

    def _control_plane(self) -> Api:
        port = open_port(self.supervisor, "api-forwarder", _LOOPBACK, Listen().port)
        certificate = self.credentials.authority.pair.certificate
        api = Api(f"https://{_LOOPBACK}:{port}", certificate, self.credentials.admin)
        kubeconfig.write(self.place.kubeconfig, api.url, certificate, self.credentials.admin, self._context)
        listen = Listen(advertise=NODE_ADDRESS)
        sync = controlplane.autoscaler_sync()
        controlplane.start(self.supervisor, self.binaries, self.credentials, listen, api, autoscaler_sync=sync)
        return api

    def _node(self) -> None:
        place, start_process = self.place, self.supervisor.start
        issue = self.credentials.authority.issue
        scheduler = self._config("scheduler", issue("scheduler", "/CN=system:kube-scheduler"))
        start_process("kube-scheduler", controlplane.scheduler_command(self.binaries, scheduler))
        subject = f"/O=system:nodes/CN=system:node:{place.name}"
        kubelet = self._config("kubelet", issue("kubelet", subject, (f"DNS:{place.name}", f"IP:{NODE_ADDRESS}")))
        inner = containerd_prefix(place)
        start_process("kubelet", [*inner, *node.kubelet_command(place, self.binaries, kubelet)])
        proxy = self._config("kube-proxy", issue("kube-proxy", "/CN=system:kube-proxy"))
        start_process("kube-proxy", node.proxy_command(place, self.binaries, proxy))
        kubectl = [self.binaries["kubectl"], "--kubeconfig", str(place.kubeconfig)]
        run([*kubectl, "apply", "--filename=-"], text=dns.manifests())
        coredns = self._config("coredns", issue("coredns", f"/CN={dns.USER}"))
        start_process("coredns", dns.command(place, self.binaries), env={"KUBECONFIG": str(coredns)})

    def _wait(self, api: Api) -> None:
        path = f"/api/v1/nodes/{self.place.name}"
        self.supervisor.wait("kubelet", lambda: node_is_ready(api.read(path)), "a Ready node", _DEADLINE)
        asked = [*self.place.network.prefix, *dns.ready_command()]
        self.supervisor.wait("coredns", lambda: _succeeds(asked), "answering", _DEADLINE)
        # Pods are refused until their namespace has its service account.
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        controllers = "kube-controller-manager"
        self.supervisor.wait(controllers, lambda: api.read(account) is not None, "a service account", _DEADLINE)

    def _config(self, name: str, user: KeyPair) -> Path:
        """Write a configuration for use inside the namespace."""
        path = self.place.folder / f"{name}.kubeconfig"
        return kubeconfig.write(path, Listen().url, self.credentials.authority.pair.certificate, user)

    @property
    def _context(self) -> str:
        return f"local-{self.place.name}"


def node_is_ready(found: Any) -> bool:
    """Whether a Node, as read from the API, says that it is Ready."""
    conditions = found["status"].get("conditions", []) if found else []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _succeeds(argv: list[str]) -> bool:
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0
