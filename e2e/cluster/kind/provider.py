"""One cluster made by kind.

Where a Docker engine answers, it is what a person gets who types `kind create cluster`. Elsewhere the engine, kind and
the node image are brought along. Afterwards both are the same: a container that is a node.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import binary, packages
from e2e.cluster.command import run
from e2e.cluster.images import transfer
from e2e.cluster.images.layout import Layout
from e2e.cluster.kind import forward, own_engine, tools
from e2e.cluster.kind.create import clients_found, create
from e2e.cluster.kind.docker import Docker
from e2e.cluster.kind.place import Place, existing
from e2e.cluster.lifecycle import Lifecycle
from e2e.cluster.local.start import node_is_ready
from e2e.cluster.progress import Progress
from e2e.cluster.provider import ClusterError, Endpoint, Image, ProviderName, Status


@dataclass(frozen=True)
class KindProvider(Lifecycle):
    """A cluster in containers; `e2e.cluster.provider.Provider` says what each method promises."""

    @property
    def kind(self) -> ProviderName:
        """Which provider this is."""
        return "kind"

    def obstacle(self) -> str | None:
        """Say what is missing: an engine and what goes with it, or what it takes to bring one along."""
        if Docker().answers():
            return tools.obstacle() or (None if clients_found() else binary.obstacle())
        if sys.platform != "linux" or os.geteuid() != 0:
            return "it needs a Docker engine that answers (`docker info`), or root on Linux to start one"
        return binary.obstacle() or tools.obstacle() or packages.obstacle(own_engine.REQUIREMENTS)

    def exists(self) -> bool:
        """Whether anything of the cluster is there."""
        return self._place.folder.exists() or self._place.own_engine.exists()

    def status(self) -> Status:
        """Look at the engine and the node."""
        if not self.exists():
            return self._status("absent", "there is nothing of it")
        if not self._place.ready_mark.exists():
            return self._status("broken", "`up` did not finish")
        if dead := self._place.own_engine.supervisor.dead():
            return self._status("broken", f"{' and '.join(dead)} ended")
        try:
            node = json.loads(self._kubectl("get", "node", self._place.node, "--output=json", "--request-timeout=5s"))
        except ClusterError as error:
            return self._status("broken", f"the API server does not answer: {str(error).splitlines()[-1].strip()}")
        if not node_is_ready(node):
            return self._status("broken", "the node is not Ready")
        return self._status("running", f"node Ready, Kubernetes {node['status']['nodeInfo']['kubeletVersion']}")

    def load_images(self, images: Sequence[Image], progress: Progress) -> None:
        """Import what the node lacks."""
        self._require_running()
        ctr = self._place.docker.command("exec", "--interactive", self._place.node, "ctr")
        for image in images:
            if image.layout is None:
                with progress.step(f"load {image.reference}"):
                    self._kind("load", "docker-image", image.reference)
            else:
                transfer.load(Layout(image.layout), [image.reference], ctr, progress)

    def inside(self, argv: Sequence[str]) -> list[str]:
        """Wrap a command so that it runs in the node's network."""
        self._require_running()
        if os.geteuid() != 0:
            raise ClusterError("Only root can enter the network of a kind cluster; use a forwarded port instead")
        return [*self._place.node_prefix, *argv]

    def logs(self) -> Sequence[Path]:
        """Return the logs of the engine, if it is the cluster's own, and a copy of the node's."""
        place = self._place
        logs = sorted(place.own_engine.supervisor.logs.glob("*.log"))
        if place.docker.process_of(place.node) is None:
            return logs
        place.node_logs.mkdir(exist_ok=True)
        journal = place.node_logs / "journal.log"
        journal.write_text(place.docker.run("exec", place.node, "journalctl", "--no-pager"))
        place.docker.run("cp", f"{place.node}:/var/log/pods", str(place.node_logs))
        return [*logs, journal, *sorted(place.node_logs.glob("pods/*/*/*.log"))]

    @contextmanager
    def forward(self, namespace: str, service: str, port: int) -> Iterator[Endpoint]:
        """Offer a Service; where this process cannot enter the node's network, through the API server."""
        self._require_running()
        found = json.loads(self._kubectl("get", "service", service, f"--namespace={namespace}", "--output=json"))
        way = forward.from_node if self._place.own_engine.exists() else forward.through_api
        with way(self._place, found, port) as endpoint:
            yield endpoint

    @property
    def _place(self) -> Place:
        return Place(self.name)

    def _create(self, progress: Progress) -> None:
        create(self._place, progress)

    def _remove(self) -> None:
        """Remove it. The link to kind goes before the traces of an engine do: alone it stands for a found engine."""
        place = self._place
        if place.own_engine.exists():
            place.own_engine.remove()
            place.kind_program.unlink(missing_ok=True)
        elif place.kind_program.exists():
            self._kind("delete", "cluster", f"--kubeconfig={place.kubeconfig}")
        if place.folder.exists():
            shutil.rmtree(place.folder)

    def _kind(self, *arguments: str) -> str:
        place = self._place
        return run([place.kind_program, *arguments, f"--name={self.name}"], env=place.docker.environment)

    def _kubectl(self, *arguments: str) -> str:
        return run([*self._place.kubectl, *arguments])


def every_cluster() -> Iterator[KindProvider]:
    """Return every cluster of this provider that left something on disk."""
    return (KindProvider(place.name) for place in existing())
