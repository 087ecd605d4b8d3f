"""One cluster made of this machine's processes."""

import json
import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import binary, packages
from e2e.cluster.api import Api
from e2e.cluster.binary import kubernetes_version
from e2e.cluster.command import which
from e2e.cluster.images import transfer
from e2e.cluster.images.layout import Layout
from e2e.cluster.lifecycle import Lifecycle
from e2e.cluster.local.place import Place
from e2e.cluster.local.remove import remove
from e2e.cluster.local.start import containerd_prefix, node_is_ready, open_port, start
from e2e.cluster.pki import KeyPair
from e2e.cluster.progress import Progress
from e2e.cluster.provider import ClusterError, Endpoint, Image, ProviderName, Status


@dataclass(frozen=True)
class LocalProvider(Lifecycle):
    """A cluster of processes; `e2e.cluster.provider.Provider` says what each method promises."""

    @property
    def kind(self) -> ProviderName:
        """Which provider this is."""
        return "local"

    def obstacle(self) -> str | None:
        """Say what is missing: Linux, root, Go, or a package that cannot be installed from here."""
        if sys.platform != "linux":
            return "it runs on Linux only"
        if os.geteuid() != 0:
            return "it needs root, to make namespaces and run containers"
        return binary.obstacle() or packages.obstacle(packages.NODE)

    def exists(self) -> bool:
        """Whether anything of the cluster is there."""
        place = self._place
        return place.folder.exists() or place.network.exists() or place.cgroup.exists()

    def status(self) -> Status:
        """Look at the processes, the API server and the node."""
        if not self.exists():
            return self._status("absent", "there is nothing of it")
        if not self._place.ready_mark.exists():
            return self._status("broken", "`up` did not finish")
        if dead := self._place.supervisor.dead():
            return self._status("broken", f"{' and '.join(dead)} ended")
        api = self._api()
        if not api.ready():
            return self._status("broken", "the API server is not ready")
        if not node_is_ready(api.read(f"/api/v1/nodes/{self.name}")):
            return self._status("broken", "the node is not Ready")
        return self._status("running", f"node Ready, Kubernetes {kubernetes_version()}")

    def load_images(self, images: Sequence[Image], progress: Progress) -> None:
        """Import what the node lacks."""
        self._require_running()
        ctr = [*containerd_prefix(self._place), which("ctr") or "ctr"]
        for image in images:
            if image.layout is None:
                raise ClusterError(
                    f"{image.reference} lies in a Docker engine: build it with buildah for this provider"
                )
            transfer.load(Layout(image.layout), [image.reference], ctr, progress)

    def inside(self, argv: Sequence[str]) -> list[str]:
        """Wrap a command so that it runs in the cluster's network."""
        self._require_running()
        return [*self._place.network.prefix, *argv]

    def logs(self) -> Sequence[Path]:
        """Return the log of each process."""
        return sorted(self._place.supervisor.logs.glob("*.log"))

    @contextmanager
    def forward(self, namespace: str, service: str, port: int) -> Iterator[Endpoint]:
        """Offer a Service's own address, so that a pod behind it may come and go meanwhile."""
        self._require_running()
        found = self._api().read(f"/api/v1/namespaces/{namespace}/services/{service}")
        if found is None:
            raise ClusterError(f"There is no Service {service} in the namespace {namespace}")
        supervisor = self._place.forwarders
        name = f"{namespace}-{service}-{port}-{secrets.token_hex(4)}"
        local_port = open_port(supervisor, name, found["spec"]["clusterIP"], port)
        try:
            yield Endpoint("127.0.0.1", local_port)
        finally:
            supervisor.stop(name)

    @property
    def _place(self) -> Place:
        return Place(self.name)

    def _create(self, progress: Progress) -> None:
        start(self._place, progress)

    def _remove(self) -> None:
        remove(self._place)

    def _api(self) -> Api:
        pki = self._place.pki
        url = json.loads(self._place.ready_mark.read_text())["url"]
        return Api(url, pki / "ca.crt", KeyPair(pki / "admin.key", pki / "admin.crt"))
