"""How the things of one cluster are called on this machine: all of them follow from its name."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.command import which
from e2e.cluster.kind.docker import Docker
from e2e.cluster.kind.own_engine import OwnEngine
from e2e.cluster.paths import state_dir
from e2e.cluster.place import ClusterPlace, names_in
from e2e.cluster.processes import Supervisor
from e2e.cluster.provider import ClusterError


@dataclass(frozen=True)
class Place(ClusterPlace):
    """Folder, engine and node of the cluster `name`."""

    @property
    def folder(self) -> Path:
        """Everything that the cluster keeps on disk, outside of a found engine."""
        return clusters_dir() / self.name

    @property
    def own_engine(self) -> OwnEngine:
        """The engine for this cluster alone, which is there when no other one was found."""
        return OwnEngine(self.name, self.folder / "engine")

    @property
    def docker(self) -> Docker:
        """The engine that the cluster is on."""
        return self.own_engine.docker if self.own_engine.exists() else Docker()

    @property
    def node(self) -> str:
        """The container that is the node."""
        return f"{self.name}-control-plane"

    @property
    def forwarders(self) -> Supervisor:
        """What starts processes in the node's network, and knows those that it started.

        Raises:
            ClusterError: the node does not run.
        """
        return Supervisor(self.folder / "engine" / "forwarders", self.node_prefix)

    @property
    def node_prefix(self) -> tuple[str, ...]:
        """What to put before a command so that it runs in the node's network, where pods and Services are.

        Raises:
            ClusterError: the node does not run.
        """
        pid = self.docker.process_of(self.node)
        if pid is None:
            raise ClusterError(f"The container {self.node} does not run")
        return which("nsenter") or "nsenter", f"--net=/proc/{pid}/ns/net", "--"

    @property
    def node_logs(self) -> Path:
        """Where the node's logs are put when somebody asks for them."""
        return self.folder / "node-logs"

    @property
    def kubectl(self) -> tuple[str, ...]:
        """The command that talks to the cluster as its administrator."""
        return str(self.binaries / "kubectl"), f"--kubeconfig={self.kubeconfig}"

    @property
    def kind_program(self) -> Path:
        """A link to the `kind` that made the cluster."""
        return self.folder / "kind"

    @property
    def ready_mark(self) -> Path:
        """Written last by `up`: without it the cluster is unfinished."""
        return self.folder / "ready"


def clusters_dir() -> Path:
    """Return the folder with one folder per cluster of this provider."""
    return state_dir() / "kind"


def existing() -> Iterator[Place]:
    """Return every cluster of this provider that left something on disk."""
    return (Place(name) for name in names_in(clusters_dir()))
