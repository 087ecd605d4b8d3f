"""The operator in a process of its own, and what it says and takes."""

import re
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from bench.runtime.processes import usage

_WRITES: Final = frozenset({"POST", "PATCH", "DELETE"})
"""What it changes with; only its Lease is written by PUT."""
_STOP_SECONDS: Final = 30
_LAST_LINES: Final = 12


@dataclass(frozen=True)
class Figures:
    """What /metrics says since the process began."""

    leading: bool
    writes: int
    """Requests that changed something, without those for the Lease."""
    refused: int
    """Writes that were answered with an error, such as a conflict."""
    reconciled: int
    idle: bool
    """Nothing is in line, and nothing is worked on."""


class Operator:
    """`moorage-operator` for the whole cluster of this process's KUBECONFIG, at most one process at a time.

    Args:
        folder: for its log.
        profile: where to write what its functions took; None: not measured.
    """

    def __init__(self, folder: Path, profile: Path | None) -> None:
        self._log, self._profile = folder / "operator.log", profile
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it does not lead yet."""
        flags = ["--runtime-image=moorage/runtime:1", "--namespace=default", f"--port={self._port}"]
        module = (
            ["bench.operator.shipped"] if self._profile is None else ["bench.operator.profiled", str(self._profile)]
        )
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([sys.executable, "-m", *module, *flags], stdout=log, stderr=log)

    def stop(self) -> None:
        """Tell it to end, and wait."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(_STOP_SECONDS)
        self._process = None

    @property
    def pid(self) -> int:
        """Its number.

        Raises:
            RuntimeError: it does not run.
        """
        if self._process is None or self._process.poll() is not None:
            said = "\n".join(self._log.read_text().splitlines()[-_LAST_LINES:])
            raise RuntimeError(f"the operator has ended; it said last:\n{said}")
        return self._process.pid

    @property
    def cpu_s(self) -> float:
        """CPU-seconds since it began."""
        return usage(self.pid).cpu_s

    @property
    def peak_mib(self) -> float:
        """The most memory that it ever held."""
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        return int(found[1]) / 1024 if found else 0.0

    async def figures(self, session: aiohttp.ClientSession) -> Figures | None:
        """Ask it; None while it does not answer."""
        if self.pid:
            try:
                async with session.get(f"http://127.0.0.1:{self._port}/metrics") as answer:
                    return read_figures(await answer.text())
            except aiohttp.ClientConnectionError:
                return None
        return None


def read_figures(page: str) -> Figures:
    """Read them from the text of /metrics."""
    samples = [one for family in text_string_to_metric_families(page) for one in family.samples]

    def total(name: str) -> int:
        return int(sum(one.value for one in samples if one.name == name))

    requests = [one for one in samples if one.name == "rest_client_requests_total"]
    writes = [one for one in requests if one.labels["method"] in _WRITES]
    return Figures(
        leading=total("leader_election_master_status") == 1,
        writes=int(sum(one.value for one in writes if one.labels["code"].startswith("2"))),
        refused=int(sum(one.value for one in writes if not one.labels["code"].startswith("2"))),
        reconciled=total("controller_runtime_reconcile_total"),
        idle=total("workqueue_depth") + total("controller_runtime_active_workers") == 0,
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port
