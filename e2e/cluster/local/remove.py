"""Removing a cluster: whatever `up` got to, also when it was killed, and whatever state its processes are in.

It asks the kernel what is in the cluster's network and control group instead of trusting what was written down, so
that a process that was started and not yet recorded is found as well. Nothing there is worth a gentle end.
"""

import shutil
import time
from pathlib import Path
from typing import Final

from e2e.cluster.command import run
from e2e.cluster.local.place import Place
from e2e.cluster.processes import Process, end
from e2e.cluster.provider import ClusterError

_DEADLINE: Final = 60.0


def remove(place: Place) -> None:
    """Remove everything of the cluster.

    Raises:
        ClusterError: a process cannot be ended, or a control group stays busy.
    """
    until = time.monotonic() + _DEADLINE
    while processes := _processes(place):
        if time.monotonic() > until:
            pids = ", ".join(str(process.pid) for process in processes)
            raise ClusterError(f"These processes of the cluster {place.name} cannot be ended: {pids}")
        end(processes, deadline=0)
    place.cgroup.remove()
    place.network.remove()
    for mount in _mounts_below(place.folder):
        run(["umount", "--lazy", mount])
    if place.folder.exists():
        shutil.rmtree(place.folder)


def _processes(place: Place) -> list[Process]:
    recorded = list(place.supervisor.recorded().values())
    found = {*place.network.processes(recorded), *place.cgroup.processes()}
    return [process for process in {*found, *recorded} if process.alive()]


def _mounts_below(folder: Path) -> list[str]:
    """Return mounts in the folder, the last made first. The cluster's own are private; a person may have made some."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in reversed(points) if Path(point).is_relative_to(folder)]
