"""How the things of one cluster are called on this machine, whoever runs it: all of them follow from its name."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from e2e.cluster.provider import ClusterError

# A DNS label, as it becomes the node's name; short, as it becomes part of the names of other things.
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")


@dataclass(frozen=True)
class ClusterPlace(ABC):
    """The files of the cluster `name`."""

    name: str

    def __post_init__(self) -> None:
        """Refuse a name that could not be a node's."""
        if not _NAME.fullmatch(self.name):
            raise ClusterError(
                f"{self.name!r} cannot be a cluster's name: up to 32 lower-case letters, digits and inner hyphens"
            )

    @property
    @abstractmethod
    def folder(self) -> Path:
        """Everything that the cluster keeps on disk, outside of a found engine."""

    @property
    @abstractmethod
    def ready_mark(self) -> Path:
        """Written last by `up`: without it the cluster is unfinished."""

    @property
    def lock(self) -> Path:
        """Beside the folder, as the folder comes and goes."""
        return self.folder.with_name(f".{self.name}.lock")

    @property
    def kubeconfig(self) -> Path:
        """The administrator's configuration; its address is a port of this machine's loopback."""
        return self.folder / "kubeconfig"

    @property
    def binaries(self) -> Path:
        """A folder with `kubectl` and `helm`."""
        return self.folder / "bin"


def names_in(clusters: Path) -> Iterator[str]:
    """Return the name of every cluster that left something in this folder of theirs."""
    return (folder.name for folder in sorted(clusters.glob("[a-z0-9]*")))
