"""A Docker engine for one cluster, where no engine answers: Debian's dockerd in namespaces of its own.

Its containers, bridges and rules exist only in a network namespace, its mounts only in a mount namespace, and its
containers only below one control group. So it never meets another engine, and everything it started can be found and
ended, also after it was killed.
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from e2e.cluster.command import run, which
from e2e.cluster.kind import node_image, runc_trim
from e2e.cluster.kind.docker import Docker
from e2e.cluster.local.cgroups import ControlGroup
from e2e.cluster.local.netns import NetworkNamespace
from e2e.cluster.packages import Requirement
from e2e.cluster.processes import Process, Supervisor, end
from e2e.cluster.progress import Progress
from e2e.cluster.provider import ClusterError

REQUIREMENTS: Final = (
    Requirement("docker.io", "dockerd"),
    Requirement("docker.io", "docker"),
    Requirement("containerd", "containerd"),
    Requirement("runc", "runc"),
    Requirement("iproute2", "ip"),
    Requirement("iptables", "iptables"),
    Requirement("mmdebstrap", "mmdebstrap"),
    Requirement("util-linux", "nsenter"),
)

# Folders whose paths are fixed in dockerd, in its containerd and in their shims.
_PRIVATE: Final = ("/etc/docker", "/run/containerd", "/run/docker")
_START_DEADLINE: Final = 30.0
_KILL_DEADLINE: Final = 30.0
_GRACE: Final = 0.2


@dataclass(frozen=True)
class OwnEngine:
    """The engine of the cluster `cluster`, which keeps everything in `folder`."""

    cluster: str
    folder: Path

    @property
    def docker(self) -> Docker:
        """The way to it."""
        return Docker(f"unix://{self.folder / 'docker.sock'}")

    @property
    def network(self) -> NetworkNamespace:
        """Where its bridges and published ports are."""
        return NetworkNamespace(f"kind-moorage-{self.cluster}")

    @property
    def cgroup(self) -> ControlGroup:
        """The group below which its containers are."""
        return ControlGroup(f"kind-moorage-{self.cluster}")

    @property
    def supervisor(self) -> Supervisor:
        """What starts the engine, and whatever else the cluster needs in its network, and knows what it started."""
        return Supervisor(self.folder, self.network.prefix)

    def exists(self) -> bool:
        """Whether anything of it is there."""
        return self.folder.exists() or self.network.exists() or self.cgroup.exists()

    def start(self, progress: Progress) -> None:
        """Start it and wait until it answers.

        Raises:
            ClusterError: it does not start; the message carries the end of its log.
        """
        with progress.step("start a Docker engine for the cluster") as step:
            self.folder.mkdir(parents=True, mode=0o700)
            self.cgroup.create()
            self._create_network()
            self.supervisor.start("dockerd", self._command())
            self.supervisor.wait("dockerd", self.docker.answers, "an engine that answers", _START_DEADLINE)
            step.result(f"docker {self.docker.version()}")

    def import_node(self, root: Path, progress: Progress) -> str:
        """Make an image of a node's file system; return its reference."""
        reference = f"{node_image.REPOSITORY}:{root.stem.removeprefix('node-')}"
        with progress.step("import the node image"):
            changes = [f"--change={change}" for change in node_image.IMPORT_CHANGES]
            self.docker.run("import", *changes, str(root), reference)
        return reference

    def remove(self) -> None:
        """End everything that it started.

        Raises:
            ClusterError: a process does not end, as one that waits for a broken disk.
        """
        known = list(self.supervisor.recorded().values())
        until = time.monotonic() + _KILL_DEADLINE
        # No grace: a node that is told to stop takes half a minute over pods that nobody needs any more.
        while left := self._processes(known):
            if time.monotonic() > until:
                raise ClusterError(f"Processes of the cluster {self.cluster} do not end: {[p.pid for p in left]}")
            end(list(left), _GRACE)
        self.cgroup.remove()
        self.network.remove()

    def _processes(self, known: list[Process]) -> set[Process]:
        """Find the engine by its network, its containers by their group, and forwarders by a container's network."""
        contained = self.cgroup.processes()
        return {
            *contained,
            *self.network.processes([*known, *contained]),
            *(process for process in known if process.alive()),
        }

    def _create_network(self) -> None:
        """Make a network that leads nowhere: a node learns at once that the world cannot be reached."""
        run(["ip", "netns", "add", self.network.name])
        run(["ip", "-netns", self.network.name, "link", "set", "lo", "up"])

    def _command(self) -> list[str]:
        config = self.folder / "daemon.json"
        config.write_text(json.dumps(self._config(), indent=1))
        mounts = [f"mkdir -p {path} && mount -t tmpfs tmpfs {path}" for path in _PRIVATE]
        script = " && ".join([*mounts, f'exec "{which("dockerd")}" --config-file "{config}"'])
        return ["unshare", "--mount", "--propagation=private", "sh", "-ec", script]

    def _config(self) -> dict[str, Any]:
        """Return the settings of dockerd (https://docs.docker.com/reference/cli/dockerd/#daemon-configuration-file)."""
        runtime = self.folder / "runc-trim"
        runtime.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{runc_trim.__file__}" "$@"\n')
        runtime.chmod(0o755)
        return {
            "hosts": [self.docker.address],
            "data-root": str(self.folder / "data"),
            "pidfile": str(self.folder / "dockerd.pid"),
            "storage-driver": "overlay2",
            "cgroup-parent": f"/{self.cgroup.name}",
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            # Without CAP_SYS_RESOURCE neither the engine nor a container can lower its out-of-memory score.
            "oom-score-adjust": 0,
            "runtimes": {"trim": {"path": str(runtime)}},
            "default-runtime": "trim",
            "ip6tables": False,
            "userland-proxy": False,
        }
