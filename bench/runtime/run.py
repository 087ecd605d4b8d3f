"""A run: the servers of each class are up, and take turns in every cell of every round."""

import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.runtime.answers import ServerError
from bench.runtime.cells import Cell
from bench.runtime.check import check
from bench.runtime.load import Timing, measure
from bench.runtime.options import Options
from bench.runtime.peers import CLASSES
from bench.runtime.result import OURS
from bench.runtime.say import say
from bench.runtime.servers import Server, start
from bench.runtime.state import Measured, State, whole


@dataclass
class Run:
    """What has been gathered."""

    options: Options
    state: State
    measured: list[Measured]
    builds: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    """Peers that could not be measured, or not to the end, with the reason."""
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of our engine without HTTP, by class."""

    def measure(self) -> None:
        """Everything that was asked for and is not measured yet."""
        for class_name in self.options.classes:
            with ExitStack() as stack:
                servers = self._start(class_name, stack)
                for round_ in range(self.options.rounds):
                    for cell in self.options.cells:
                        self._group(class_name, cell, round_, servers)
            self.steps[class_name] = _steps(CLASSES[class_name].checkpoint())

    def _start(self, class_name: str, stack: ExitStack) -> dict[str, Server]:
        """The servers that could be started; they end with `stack`."""
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="moorage-bench-")))
        checkpoint = CLASSES[class_name].checkpoint()
        servers = {}
        for name, launch in CLASSES[class_name].servers.items():
            if name != OURS and name not in self.options.peers:
                continue
            try:
                server = start(name, launch(checkpoint), logs / name)
                stack.callback(server.end)
                check(server)
            except ServerError as error:
                self._without(name, error)
            else:
                servers[name] = server
                self.builds[name] = server.launch.build
        return servers

    def _group(self, class_name: str, cell: Cell, round_: int, servers: dict[str, Server]) -> None:
        """One cell in one round: every server, one after the other; the order turns from round to round."""
        wanted = [server for server in servers.values() if server.measures(cell)]
        key = (class_name, cell.name, round_)
        before = [one for one in self.measured if (one.class_name, one.cell, one.round) == key]
        if whole(before, [server.name for server in wanted]):
            return
        self.measured = [one for one in self.measured if one not in before]
        for server in wanted if round_ % 2 == 0 else reversed(wanted):
            try:
                self._keep(_window(server, class_name, cell, round_, self.options.timing))
            except ServerError as error:
                self._without(server.name, server.explain(error))
                del servers[server.name]

    def _keep(self, measured: Measured) -> None:
        self.measured.append(measured)
        self.state.add(measured)

    def _without(self, name: str, error: ServerError) -> None:
        """Go on without a peer; without ourselves there is nothing to compare.

        Raises:
            SystemExit: it is ours that failed.
        """
        if name == OURS:
            raise SystemExit(f"{name}: {error}") from error
        say(f"going on without {name}: {error}")
        self.missing[name] = str(error)


def _window(server: Server, class_name: str, cell: Cell, round_: int, timing: Timing) -> Measured:
    with server.awake():
        before, begun = server.usage(), time.monotonic()
        sample, client_cpu = measure(server.target, cell, timing)
        after, took = server.usage(), time.monotonic() - begun
    say(
        f"{class_name}, round {round_ + 1}, {cell.name:10} {server.name:17}{sample.tok_s:8.1f} tok/s, TTFT"
        f" {sample.ttft_p50_ms:6.0f} ms, ITL {sample.itl_p50_ms:6.1f} ms, {sample.requests} answers"
    )
    return Measured(
        class_name=class_name,
        cell=cell.name,
        round=round_,
        server=server.name,
        sample=sample,
        rss_mib=after.rss_mib,
        client_cpu=client_cpu,
        server_cpu=(after.cpu_s - before.cpu_s) / took,
    )


def _steps(checkpoint: Path) -> dict[str, Any]:
    """Our engine without HTTP, in a process of its own; empty where it failed, which is told."""
    command = [sys.executable, "-m", "bench.runtime.steps", str(checkpoint)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        say(f"{' '.join(command)} ended with code {done.returncode}: no shares in the result")
        return {}
    found: dict[str, Any] = json.loads(done.stdout)
    return found
