"""The network namespace of one cluster: pod and Service addresses, rules and ports exist only in there.

It is entered with `nsenter`, never with `ip netns exec`: that one mounts a new /sys, which hides the control groups.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from e2e.cluster.command import run, which
from e2e.cluster.processes import Process, every_process, identify

NODE_ADDRESS: Final = "192.0.2.1"
"""The node's own address (TEST-NET-1), which exists in every cluster's namespace and nowhere else."""
_BRIDGE: Final = "node0"
_SETTINGS: Final = ("net/ipv4/ip_forward", "net/ipv4/conf/all/route_localnet")


@dataclass(frozen=True)
class NetworkNamespace:
    """A named network namespace."""

    name: str

    @property
    def path(self) -> Path:
        """The file that stands for it."""
        return Path("/run/netns") / self.name

    @property
    def prefix(self) -> tuple[str, ...]:
        """What to put before a command so that it runs in the namespace."""
        return (which("nsenter") or "nsenter", f"--net={self.path}", "--")

    def exists(self) -> bool:
        """Whether it is there."""
        return self.path.exists()

    def create(self) -> None:
        """Make it, with a bridge as the node's interface: not every kernel has the dummy device."""
        run(["ip", "netns", "add", self.name])
        ip = ["ip", "-netns", self.name]
        run([*ip, "link", "set", "lo", "up"])
        run([*ip, "link", "add", _BRIDGE, "type", "bridge"])
        run([*ip, "address", "add", f"{NODE_ADDRESS}/24", "dev", _BRIDGE])
        run([*ip, "link", "set", _BRIDGE, "up"])
        run([*ip, "route", "add", "default", "dev", _BRIDGE])
        writes = "; ".join(f"echo 1 > /proc/sys/{setting}" for setting in _SETTINGS)
        run([*self.prefix, "sh", "-ec", writes])

    def remove(self) -> None:
        """Remove it; with the last process in it gone, its interfaces, addresses and rules go too."""
        if self.exists():
            run(["ip", "netns", "delete", self.name])

    def processes(self, known: Sequence[Process]) -> list[Process]:
        """Return the processes that are in the namespace.

        Args:
            known: Processes that were started in it: they lead to it even when its name was taken away.
        """
        wanted = {key for process in known if process.alive() and (key := _namespace(process.pid)) is not None}
        if self.exists():
            status = self.path.stat()
            wanted.add((status.st_dev, status.st_ino))
        wanted.discard(_namespace(os.getpid()))  # one that was caught before it had entered
        inside = [pid for pid in every_process() if _namespace(pid) in wanted]
        return [process for pid in inside if (process := identify(pid)) is not None]


def _namespace(pid: int) -> tuple[int, int] | None:
    try:
        status = Path(f"/proc/{pid}/ns/net").stat()
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # ended, or guarded by the kernel: not ours
        return None
    return status.st_dev, status.st_ino
