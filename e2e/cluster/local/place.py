"""How the things of one cluster are called on this machine: all of them follow from its name."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.local.cgroups import ControlGroup
from e2e.cluster.local.netns import NetworkNamespace
from e2e.cluster.paths import state_dir
from e2e.cluster.place import ClusterPlace, names_in
from e2e.cluster.processes import Supervisor


@dataclass(frozen=True)
class Place(ClusterPlace):
    """Folders and kernel objects of the cluster `name`."""

    @property
    def folder(self) -> Path:
        """Everything that the cluster keeps on disk."""
        return clusters_dir() / self.name

    @property
    def network(self) -> NetworkNamespace:
        """The network that all of the cluster's processes are in."""
        return NetworkNamespace(f"moorage-{self.name}")

    @property
    def cgroup(self) -> ControlGroup:
        """The group below which kubelet puts its pods: two kubelets on `/` would delete each other's."""
        return ControlGroup(f"moorage-{self.name}")

    @property
    def supervisor(self) -> Supervisor:
        """What starts processes in the cluster's network, and knows those that it started."""
        return Supervisor(self.folder, self.network.prefix)

    @property
    def forwarders(self) -> Supervisor:
        """The same for processes that come and go while the cluster runs: their end says nothing about it."""
        return Supervisor(self.folder / "forwarders", self.network.prefix)

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.folder / "pki"

    @property
    def ready_mark(self) -> Path:
        """Written last by `up`: without it the cluster is unfinished. It says where the API server answers."""
        return self.folder / "ready.json"


def clusters_dir() -> Path:
    """Return the folder with one folder per local cluster."""
    return state_dir() / "clusters"


def existing() -> Iterator[Place]:
    """Return every local cluster that left something on disk."""
    return (Place(name) for name in names_in(clusters_dir()))
