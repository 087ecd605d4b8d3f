"""Nodes that KWOK plays the kubelets of, beside a control plane that has none."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from e2e.cluster.binary import Binaries
from e2e.cluster.command import run
from e2e.cluster.controlplane import ControlPlane, scheduler_command, tied_to_this_process
from e2e.cluster.kwok.binary import ensure_kwok
from e2e.cluster.processes import Supervisor
from e2e.cluster.progress import Progress

_ROOM: Final = {"cpu": "1000", "memory": "4Ti", "pods": "1000"}
_LEASE_SECONDS: Final = 40
"""As kubelets have; without leases the node controller takes the nodes for dead."""
_DEADLINE: Final = "60s"


@contextmanager
def simulated_nodes(plane: ControlPlane, count: int, progress: Progress) -> Iterator[None]:
    """Give a control plane a scheduler and `count` simulated nodes for as long as the context lasts.

    Raises:
        ClusterError: KWOK cannot be built, or a part does not come up.
    """
    kwok = ensure_kwok(progress)
    folder = plane.directory / "kwok"
    folder.mkdir()
    supervisor = Supervisor(folder, tied_to_this_process())
    try:
        with progress.step(f"scheduler, {count} simulated nodes"):
            supervisor.start("kube-scheduler", scheduler_command(Binaries(plane.binaries), plane.kubeconfig))
            supervisor.start("kwok", kwok_command(kwok, plane.kubeconfig))
            kubectl = [str(plane.binaries / "kubectl"), f"--kubeconfig={plane.kubeconfig}"]
            nodes = {"apiVersion": "v1", "kind": "List", "items": [_node(number) for number in range(count)]}
            run([*kubectl, "create", "--filename=-"], text=json.dumps(nodes))
            run([*kubectl, "wait", "nodes", "--all", "--for=condition=Ready", f"--timeout={_DEADLINE}"])
        yield
    finally:
        supervisor.stop()


def kwok_command(kwok: Path, config: Path) -> list[str]:
    """Return the command of KWOK. What pods go through is KWOK's default: Ready at once, gone at once."""
    return [
        str(kwok),
        f"--kubeconfig={config}",
        "--manage-all-nodes",
        f"--node-lease-duration-seconds={_LEASE_SECONDS}",
        "--node-port=0",  # it plays no kubelet that could be asked for logs: nothing listens
    ]


def _node(number: int) -> dict[str, Any]:
    name = f"simulated-{number}"
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"capacity": _ROOM, "allocatable": _ROOM},
    }
