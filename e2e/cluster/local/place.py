"""How the things of one cluster are called on this machine: all of them follow from its name."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from e2e.cluster.local.cgroups import ControlGroup
from e2e.cluster.local.netns import NetworkNamespace
from e2e.cluster.paths import state_dir
from e2e.cluster.processes import Supervisor
from e2e.cluster.provider import ClusterError

# A DNS label, as it becomes the node's name; short, as it becomes part of the names of other things.
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")


def require_name(name: str) -> None:
    """Refuse a name that could not be a node's.

    Raises:
        ClusterError: it is not a DNS label of at most 32 characters.
    """
    if not _NAME.fullmatch(name):
        raise ClusterError(
            f"{name!r} cannot be a cluster's name: up to 32 lower-case letters, digits and inner hyphens"
        )


@dataclass(frozen=True)
class Place:
    """Folders and kernel objects of the cluster `name`."""

    name: str

    def __post_init__(self) -> None:
        """Refuse a name that could not be a node's."""
        require_name(self.name)

    @property
    def folder(self) -> Path:
        """Everything that the cluster keeps on disk."""
        return clusters_dir() / self.name

    @property
    def lock(self) -> Path:
        """Beside the folder, as the folder comes and goes."""
        return clusters_dir() / f".{self.name}.lock"

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
    def kubeconfig(self) -> Path:
        """The administrator's configuration for use outside of the namespace."""
        return self.folder / "kubeconfig"

    @property
    def ready_mark(self) -> Path:
        """Written last by `up`: without it the cluster is unfinished. It says where the API server answers."""
        return self.folder / "ready.json"

    @property
    def binaries(self) -> Path:
        """A link to the folder of the programs that the cluster runs."""
        return self.folder / "bin"


def clusters_dir() -> Path:
    """Return the folder with one folder per local cluster."""
    return state_dir() / "clusters"


def existing() -> Iterator[Place]:
    """Return every local cluster that left something on disk."""
    for folder in sorted(clusters_dir().glob("[a-z0-9]*")):
        yield Place(folder.name)
