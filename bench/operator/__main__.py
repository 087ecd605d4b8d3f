"""Measures the operator: `python -m bench.operator`. Progress on stderr, one JSON line last.

A real API server, etcd, controller manager and scheduler, and simulated nodes on which every pod is ready at once: what
is left is what Kubernetes and the operator do. CPU is from the kernel's accounting, so that it means the same on a busy
machine; the seconds are what this machine gives to all of them together. OBJECTS=100 makes it short; REPLICAS=4 gives
each so many pods; AUTOSCALING=1 gives each an autoscaler; PROFILE=FILE writes there what the operator's functions took.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp

from bench.operator.fleet import Fleet, available, replaced
from bench.operator.process import Figures, Operator
from bench.runtime.processes import usage
from e2e.cluster.command import run
from e2e.cluster.controlplane import ControlPlane, control_plane
from e2e.cluster.kwok import simulated_nodes
from e2e.cluster.paths import REPOSITORY
from e2e.cluster.processes import Supervisor
from e2e.cluster.progress import Progress
from e2e.waiting import eventually
from moorage_operator.shell.credentials import connector

_OBJECTS = int(os.environ.get("OBJECTS") or 1000)
_REPLICAS = int(os.environ.get("REPLICAS") or 1)
_AUTOSCALED = bool(os.environ.get("AUTOSCALING"))
_PROFILE = os.environ.get("PROFILE")
_NODES = 10
_REST_SECONDS = 60.0
_ONE_BY_ONE = 10
_QUIET_SECONDS = 5.0
"""Without a write, after which a phase is over: longer than anything that the operator waits for."""
_DEADLINE = 60 + 4.0 * _OBJECTS * _REPLICAS
"""Seconds for a phase. The slowest operator that was measured with this many objects needed three for each."""


@dataclass(frozen=True)
class Look:
    """One look at everybody."""

    operator: Figures
    cpu_s: dict[str, float]


@dataclass(frozen=True)
class Phase:
    """What a part of the run took. Writes and CPU include those that came after the end, when all was well already."""

    seconds: float
    cpu_s: dict[str, float]
    """By program."""
    writes: int
    refused: int
    reconciled: int


class Bench:
    """The run: one cluster, one fleet, one operator at a time."""

    def __init__(self, plane: ControlPlane, fleet: Fleet, operator: Operator, session: aiohttp.ClientSession) -> None:
        self._fleet, self._operator, self._session = fleet, operator, session
        self._pids = {
            name: process.pid
            for folder in (plane.directory, plane.directory / "kwok")
            for name, process in Supervisor(folder).recorded().items()
        }

    async def run(self) -> dict[str, Any]:
        """Every phase, and its figures."""
        await self._fleet.settle_in()
        self._operator.start()
        await self._until(lambda seen: seen.leading)
        created = await self._phase("created", self._fleet.deploy, available)
        rss_mib = self._operator.peak_mib
        updated = await self._phase("updated", lambda: self._fleet.edit(1), replaced(1))
        update_rss_mib = self._operator.peak_mib
        restart_s, resync_writes = await self._restart()
        restart_cpu_s, restart_rss_mib = self._operator.cpu_s, self._operator.peak_mib
        return {
            "bench": "operator",
            "objects": _OBJECTS,
            "replicas": _REPLICAS,
            "autoscaled": _AUTOSCALED,
            "available_s": round(created.seconds, 1),
            "update_s": round(updated.seconds, 1),
            "restart_s": round(restart_s, 2),
            "cpu_s": round(created.cpu_s["operator"], 2),
            "rss_mib": round(rss_mib),
            "writes_per_object": round(created.writes / _OBJECTS, 2),
            "resync_writes": resync_writes,
            "steady_writes_per_min": await self._rest(),
            "update": {
                "cpu_s": round(updated.cpu_s["operator"], 2),
                "rss_mib": round(update_rss_mib),
                "writes_per_object": round(updated.writes / _OBJECTS, 2),
            },
            "restart": {"cpu_s": round(restart_cpu_s, 2), "rss_mib": round(restart_rss_mib)},
            "idle": await self._idle(),
            "cpu_s_by_program": {name: round(seconds, 1) for name, seconds in created.cpu_s.items()},
        }

    async def _phase(self, name: str, change: Callable[[], Awaitable[None]], accepted: Callable[[Any], bool]) -> Phase:
        before, began = await self._look(), time.monotonic()
        await change()
        asked = time.monotonic() - began
        await self._while_it_runs(self._fleet.until(accepted, _DEADLINE))
        seconds = time.monotonic() - began
        await self._until_quiet()
        after = await self._look()
        phase = Phase(
            seconds=seconds,
            cpu_s={program: spent - before.cpu_s[program] for program, spent in after.cpu_s.items()},
            writes=after.operator.writes - before.operator.writes,
            refused=after.operator.refused - before.operator.refused,
            reconciled=after.operator.reconciled - before.operator.reconciled,
        )
        _say(
            f"  {name}: asked for in {asked:.1f} s, there after {seconds:.1f} s; for each object "
            f"{phase.writes / _OBJECTS:.2f} writes ({phase.refused / _OBJECTS:.2f} more refused), "
            f"{phase.reconciled / _OBJECTS:.1f} reconciliations, {phase.cpu_s['operator'] / _OBJECTS * 1000:.1f} ms"
        )
        _say("    CPU-s: " + ", ".join(f"{program} {spent:.1f}" for program, spent in phase.cpu_s.items()))
        return phase

    async def _while_it_runs(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something, unless the operator ends: it would be started again anywhere else, but its figures are lost."""
        task = asyncio.create_task(work)
        try:
            while self._operator.pid and not task.done():
                await asyncio.wait({task}, timeout=1)
        except RuntimeError:
            task.cancel()
            raise
        await task

    async def _restart(self) -> tuple[float, int]:
        """Seconds from the start of a new process until it has looked at every object, and what it wrote."""
        self._operator.stop()
        began = time.monotonic()
        self._operator.start()
        await self._until(lambda seen: seen.leading and seen.idle and seen.reconciled >= _OBJECTS)
        seconds = time.monotonic() - began
        await self._until_quiet()
        writes = (await self._look()).operator.writes
        _say(f"  restarted: all looked at after {seconds:.1f} s, {writes} writes, {self._operator.cpu_s:.1f} CPU-s")
        return seconds, writes

    async def _rest(self) -> float:
        """Writes per minute when nobody wants anything."""
        before = await self._look()
        await asyncio.sleep(_REST_SECONDS)
        after = await self._look()
        writes = after.operator.writes - before.operator.writes
        spent = after.cpu_s["operator"] - before.cpu_s["operator"]
        _say(f"  at rest for {_REST_SECONDS:.0f} s: {writes} writes, {spent:.2f} CPU-s")
        return round(writes * 60 / _REST_SECONDS, 2)

    async def _idle(self) -> dict[str, float]:
        """How long one object takes when nothing else goes on: the median of some."""
        seen = []
        for number in range(_ONE_BY_ONE):
            seen.append(await self._fleet.one_more(number))
            await self._until(lambda seen: seen.idle)
        pod_s, status_s = (median(times) for times in zip(*((one.pod_s, one.status_s) for one in seen), strict=True))
        _say(f"  one at a time: a pod after {pod_s:.3f} s, Available {status_s:.3f} s after the pod was ready")
        return {"pod_s": round(pod_s, 3), "status_s": round(status_s, 3)}

    async def _look(self) -> Look:
        figures = await self._until(lambda _: True)
        cpu_s = {name: usage(pid).cpu_s for name, pid in self._pids.items()}
        return Look(figures, {"operator": self._operator.cpu_s, **cpu_s})

    async def _until(self, accepted: Callable[[Figures], bool]) -> Figures:
        """Ask the operator until its figures are accepted."""
        async with asyncio.timeout(_DEADLINE):
            while True:
                seen = await self._operator.figures(self._session)
                if seen is not None and accepted(seen):
                    return seen
                await asyncio.sleep(0.1)

    async def _until_quiet(self) -> None:
        """Wait until nothing was written for a while."""
        writes, since = -1, time.monotonic()
        while time.monotonic() - since < _QUIET_SECONDS:
            seen = await self._until(lambda seen: seen.idle)
            if seen.writes != writes:
                writes, since = seen.writes, time.monotonic()
            await asyncio.sleep(0.5)


def _bars(result: dict[str, Any]) -> None:
    """Say what the run shows for the project's bars, in the words of the tests that show the others."""
    pods, restart, update = result["objects"] * result["replicas"], result["restart"], result["update"]
    size = f"objects={result['objects']} pods={pods} autoscaled={result['autoscaled']}"
    highest = max(result["rss_mib"], update["rss_mib"], restart["rss_mib"])
    _say(f"R9   {size} cold_start_s={result['restart_s']} cpu_s={restart['cpu_s']} (20 s, 15 CPU-s for 1000 and 4000)")
    _say(f"R10  {size} rss_mib={highest} (120 MiB for 100 and 100, 300 for 1000 and 4000)")
    writes = f"create={result['writes_per_object']} restart={result['resync_writes']}"
    _say(f"R11  {size} {writes} rest_per_min={result['steady_writes_per_min']} (6 for each, 0, 0)")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


async def _measure(plane: ControlPlane) -> dict[str, Any]:
    operator = Operator(plane.directory, Path(_PROFILE) if _PROFILE else None)
    connection = connector(os.environ)()
    async with (
        aiohttp.ClientSession() as session,
        Fleet(connection, _OBJECTS, _REPLICAS, autoscaled=_AUTOSCALED) as fleet,
    ):
        try:
            return await Bench(plane, fleet, operator, session).run()
        finally:
            operator.stop()


def main() -> None:
    """Bring the control plane up, measure, print."""
    _say(f"operator: {_OBJECTS} LLMDeployments of {_REPLICAS} on {_NODES} simulated nodes")
    progress = Progress()
    with (
        tempfile.TemporaryDirectory(prefix="moorage-bench-") as folder,
        control_plane(Path(folder), progress, autoscaler_sync="15s") as plane,
        simulated_nodes(plane, _NODES, progress),
    ):
        os.environ["KUBECONFIG"] = str(plane.kubeconfig)
        kubectl = str(plane.binaries / "kubectl")
        run([kubectl, "create", f"--filename={REPOSITORY / 'crds'}"])
        # `kubectl wait` ends on an error where it looks before there is any condition.
        established = '--output=jsonpath={.items[*].status.conditions[?(@.type=="Established")].status}'
        eventually(lambda: run([kubectl, "get", "crd", established]), lambda said: said == "True", 30)
        result = asyncio.run(_measure(plane))
    _bars(result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
