"""Measures the runtime beside `transformers serve`: `python -m bench.runtime`. Progress on stderr, one JSON line last.

Both serve the same bf16 checkpoint of SmolLM2-135M-Instruct on all cores, one at a time (the others are stopped), with
the same closed-loop clients. Rounds are interleaved and ratios are taken within a round, because what else runs on a
machine changes by the minute. QUICK=1 makes it short.
"""

import json
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.runtime import peers
from bench.runtime.load import Cell, Target, measure, prime
from bench.runtime.say import say
from bench.runtime.servers import Launch, Server, free_port, start

CLIENTS = (1, 8, 16)
OURS = "moorage"
_QUICK = bool(os.environ.get("QUICK"))
_ROUNDS = 3
_WARM_UP = 2.0 if _QUICK else 5.0
_WINDOW = 6.0 if _QUICK else 25.0

Cells = Mapping[tuple[str, int], Sequence[Cell]]


def main() -> None:
    """Set up, measure, report."""
    environment = peers.transformers_environment()
    checkpoint = peers.checkpoint(environment)
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="moorage-bench-")))
        servers = _start(stack, logs, environment, checkpoint)
        cells = _measure(servers)
    print(json.dumps(report(cells)))


def _start(stack: ExitStack, logs: Path, environment: Path, checkpoint: Path) -> list[Server]:
    servers = []
    for launch in (_ours(checkpoint), _transformers(environment, checkpoint)):
        log = stack.enter_context((logs / launch.name).open("w"))
        try:
            server = start(launch, log)
        except SystemExit:
            sys.stderr.write((logs / launch.name).read_text()[-4000:])
            raise
        stack.callback(server.end)
        with server.awake():
            prime(Target(server.port, server.model))
        servers.append(server)
    return servers


def _ours(checkpoint: Path) -> Launch:
    port = free_port()
    command = [sys.executable, "-m", "moorage_runtime.server.main", "serve", str(checkpoint), "--served-name", "bench"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "bfloat16"]
    command += ["--context-length", "1024", "--max-running", "16"]
    return Launch(name=OURS, command=command, port=port, model="bench", ready_path="/readyz")


def _transformers(environment: Path, checkpoint: Path) -> Launch:
    port = free_port()
    command = peers.transformers_command(environment, checkpoint, port)
    name = f"transformers {peers.TRANSFORMERS}"
    return Launch(name=name, command=command, port=port, model=str(checkpoint), ready_path="/health")


def _measure(servers: Sequence[Server]) -> Cells:
    cells: dict[tuple[str, int], list[Cell]] = defaultdict(list)
    for round_ in range(_ROUNDS):
        for clients in CLIENTS:
            for server in servers if round_ % 2 == 0 else reversed(servers):
                with server.awake():
                    cell = measure(Target(server.port, server.model), clients, _WARM_UP, _WINDOW)
                cells[server.name, clients].append(cell)
                say(
                    f"round {round_ + 1}/{_ROUNDS}, {clients:2} clients, {server.name}: {cell.tok_s:.1f} tok/s, "
                    f"TTFT {cell.ttft_p50_ms:.0f} ms, ITL {cell.itl_p50_ms:.1f} ms, {cell.requests} requests"
                )
    return cells


def report(cells: Cells) -> dict[str, Any]:
    """The result: medians over the rounds, and per peer the lowest of the median ratios within a round."""
    names = list(dict.fromkeys(name for name, _ in cells))
    rows = [_row(name, clients, cells[name, clients]) for name in names for clients in CLIENTS]
    ratios = {peer: min(_ratio(cells, peer, clients) for clients in CLIENTS) for peer in names if peer != OURS}
    return {"bench": "runtime", "rows": rows, "ratio_min": {peer: round(ratio, 2) for peer, ratio in ratios.items()}}


def _row(name: str, clients: int, cells: Sequence[Cell]) -> dict[str, Any]:
    return {
        "server": name,
        "clients": clients,
        "tok_s": round(statistics.median(cell.tok_s for cell in cells), 1),
        "ttft_p50_ms": round(statistics.median(cell.ttft_p50_ms for cell in cells), 1),
        "itl_p50_ms": round(statistics.median(cell.itl_p50_ms for cell in cells), 1),
    }


def _ratio(cells: Cells, peer: str, clients: int) -> float:
    pairs = zip(cells[OURS, clients], cells[peer, clients], strict=True)
    return statistics.median(ours.tok_s / theirs.tok_s for ours, theirs in pairs)


if __name__ == "__main__":
    main()
