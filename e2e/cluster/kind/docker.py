"""The way to a Docker engine: `docker` and `kind`, called so that they reach it."""

from collections.abc import Mapping
from dataclasses import dataclass

from e2e.cluster.command import run, which
from e2e.cluster.provider import ClusterError


@dataclass(frozen=True)
class Docker:
    """An engine at an address; without one, the engine that the person's own settings lead to."""

    address: str | None = None

    @property
    def environment(self) -> Mapping[str, str]:
        """What makes `kind` reach it as well."""
        return {} if self.address is None else {"DOCKER_HOST": self.address}

    def command(self, *arguments: str) -> list[str]:
        """Return the whole command of `docker ARGUMENTS`, for a process of another environment."""
        host = [] if self.address is None else ["--host", self.address]
        return [which("docker") or "docker", *host, *arguments]

    def run(self, *arguments: str) -> str:
        """Run `docker ARGUMENTS` and return what it prints.

        Raises:
            ClusterError: it failed.
        """
        return run(self.command(*arguments))

    def answers(self) -> bool:
        """Whether there is an engine at the other end."""
        if which("docker") is None:
            return False
        try:
            return bool(self.version())
        except ClusterError:
            return False

    def version(self) -> str:
        """Return the engine's version."""
        return self.run("version", "--format", "{{.Server.Version}}").strip()

    def process_of(self, container: str) -> int | None:
        """Return the first process of a container, as this machine numbers it; None when there is none."""
        try:
            pid = self.run("container", "inspect", "--format", "{{.State.Pid}}", container)
        except ClusterError:
            return None
        return int(pid) or None
