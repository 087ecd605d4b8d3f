"""How a cluster comes and goes, whoever runs it: one caller at a time, what is broken is removed first."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.command import lock
from e2e.cluster.place import ClusterPlace
from e2e.cluster.progress import Progress
from e2e.cluster.provider import ClusterError, ProviderName, State, Status


@dataclass(frozen=True)
class Lifecycle(ABC):
    """What all providers do alike; `e2e.cluster.provider.Provider` says what each method promises."""

    name: str

    @property
    @abstractmethod
    def kind(self) -> ProviderName:
        """Which provider this is."""

    @abstractmethod
    def exists(self) -> bool:
        """Whether anything of the cluster is there."""

    @abstractmethod
    def status(self) -> Status:
        """Look at it."""

    @property
    @abstractmethod
    def _place(self) -> ClusterPlace:
        """Its files."""

    @abstractmethod
    def _create(self, progress: Progress) -> None:
        """Make it, where there is nothing of it."""

    @abstractmethod
    def _remove(self) -> None:
        """Remove whatever is there of it."""

    @property
    def kubeconfig(self) -> Path:
        """The administrator's configuration; its address is a port of this machine's loopback."""
        return self._place.kubeconfig

    @property
    def binaries(self) -> Path:
        """A folder with `kubectl` and `helm`."""
        return self._place.binaries

    def up(self, progress: Progress) -> None:
        """Bring it up; one that is broken is removed first."""
        with lock(self._place.lock, progress, f"the cluster {self.name}"):
            status = self.status()
            if status.state == "running":
                progress.say(f"✓ cluster {self.name} is up: {status.reason}")
                return
            if status.state == "broken":
                with progress.step(f"remove what is left of {self.name}: {status.reason}"):
                    self._remove()
            self._create(progress)

    def down(self, progress: Progress) -> None:
        """Remove it."""
        with lock(self._place.lock, progress, f"the cluster {self.name}"):
            if not self.exists():
                progress.say(f"✓ there is no cluster {self.name}")
                return
            with progress.step(f"remove the cluster {self.name}"):
                self._remove()

    def _require_running(self) -> None:
        status = self.status()
        if status.state != "running":
            raise ClusterError(f"The cluster {self.name} is not up: {status.reason}; run `up` first")

    def _status(self, state: State, reason: str) -> Status:
        return Status(self.name, self.kind, state, reason)
