"""What a cluster can be asked for, whoever runs it.

Two providers implement this: `kind`, where a Docker engine answers, and `local`, which runs the same Kubernetes as
processes of this machine. The demo and every end-to-end case know only this module.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

from e2e.cluster.progress import Progress

ProviderName = Literal["local", "kind"]
State = Literal["absent", "running", "broken"]

DEFAULT_NAME: Final = "moorage"


class ClusterError(Exception):
    """Something that the person at the terminal can act on: the message says what and how, no traceback is needed."""


@dataclass(frozen=True)
class Image:
    """An image that was built and can be loaded into a cluster.

    The tag is a hash of what went in, so that equal references are equal images.
    """

    reference: str
    """As a pod names it: `moorage/operator:3f1c…`."""
    layout: Path | None
    """The OCI layout (a folder that several images share) that holds it; None when it lies in a Docker engine."""


@dataclass(frozen=True)
class Status:
    """One look at a cluster."""

    name: str
    provider: ProviderName
    state: State
    """`broken`: something of it is there, but it does not work; `up` repairs it and `down` removes it."""
    reason: str
    """Why it is in that state, in one sentence: `node Ready, Kubernetes v1.34.4`, `kubelet is not running`."""


@dataclass(frozen=True)
class Endpoint:
    """A port of this machine's loopback that leads into the cluster."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The endpoint as the start of an HTTP address, without a slash at its end."""
        return f"http://{self.host}:{self.port}"


class Provider(Protocol):
    """One cluster, which may not exist yet. Making the value does nothing and looks at nothing."""

    @property
    def name(self) -> str:
        """The cluster's name; two clusters of different names never touch."""
        ...

    @property
    def kind(self) -> ProviderName:
        """Which provider this is."""
        ...

    @property
    def kubeconfig(self) -> Path:
        """The administrator's configuration, usable by a process outside of the cluster's network.

        It is there once `up` has returned; nobody but its owner can read it.
        """
        ...

    @property
    def binaries(self) -> Path:
        """A folder with `kubectl` and `helm` to put on PATH."""
        ...

    def obstacle(self) -> str | None:
        """What is missing on this machine to run such a cluster, in one sentence; None when nothing is."""
        ...

    def exists(self) -> bool:
        """Whether anything of the cluster is there, working or not."""
        ...

    def status(self) -> Status:
        """Look at the cluster, changing nothing."""
        ...

    def up(self, progress: Progress) -> None:
        """Bring the cluster to a Ready node; a second or two when it is up already, a repair when it is broken.

        Raises:
            ClusterError: it cannot be done; the message says what is missing or which log tells more.
        """
        ...

    def down(self, progress: Progress) -> None:
        """Remove the cluster and everything that `up` started, also after an `up` that was killed half-way."""
        ...

    def load_images(self, images: Sequence[Image], progress: Progress) -> None:
        """Give the images to the node, sending only what it lacks.

        Raises:
            ClusterError: the cluster is not running, or refuses an image.
        """
        ...

    def inside(self, argv: Sequence[str]) -> list[str]:
        """Wrap a command so that it runs in the cluster's network, where Services and pods have their addresses.

        It keeps this machine's files, working directory and environment.

        Raises:
            ClusterError: the cluster is not running.
        """
        ...

    def logs(self) -> Sequence[Path]:
        """Return the log files of the cluster's own parts, for the person who looks for what went wrong."""
        ...

    def forward(self, namespace: str, service: str, port: int) -> AbstractContextManager[Endpoint]:
        """Offer a Service on a free port of this machine's loopback for as long as the context lasts.

        Raises:
            ClusterError: the cluster is not running, or has no such Service.
        """
        ...
