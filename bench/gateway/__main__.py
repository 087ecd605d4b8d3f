"""Measures the gateway: `python -m bench.gateway`. Progress on stderr, one JSON line last.

Backend, gateway and loader are processes of their own on loopback; each request is answered with 32 streamed tokens.
CPU is the gateway's own, from the kernel's accounting, so that it means the same on a busy machine; requests per second
are what was left of the machine. QUICK=1 makes it short.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.gateway.backend import TOKENS

_CLIENTS = (1, 8, 32, 64)
_QUICK = bool(os.environ.get("QUICK"))
_SECONDS = 2 if _QUICK else 6
_SUSTAINED_REQUESTS = 6_000 if _QUICK else 60_000
_PACED_SECONDS = 4 if _QUICK else 12
_PACE_MS = 10

Figures = dict[str, float]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


@contextmanager
def _process(module: str, port: int, *arguments: str) -> Iterator[int]:
    """Run one of our modules until the block ends; gives its process id once its port answers."""
    process = subprocess.Popen([sys.executable, "-m", f"bench.gateway.{module}", str(port), *arguments])
    try:
        _wait_for(port, process)
        yield process.pid
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    sys.exit(f"port {port} did not come up")


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    user, system = int(fields[11]), int(fields[12])  # utime and stime: proc(5), counted from the field after the name
    return (user + system) / os.sysconf("SC_CLK_TCK")


def _load(port: int, clients: int, pid: int, *arguments: str) -> Figures:
    """Load a port; what the loader saw, and the CPU-seconds of `pid` meanwhile."""
    before = _cpu_seconds(pid)
    command = [sys.executable, "-m", "bench.gateway.loader", str(port), "--clients", str(clients), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seen: Figures = json.loads(done.stdout) | {"cpu_s": _cpu_seconds(pid) - before}
    _say(
        f"    {clients:>2} clients: {seen['rps']:8.0f} requests/s, p50 {seen['p50_ms']:7.2f} ms, "
        f"p99 {seen['p99_ms']:7.2f} ms, {seen['cpu_s']:5.2f} CPU-s, {seen['failed']:.0f} failed"
    )
    return seen


def _per(seen: Figures, unit: str, count: float) -> float:
    return round(seen["cpu_s"] / seen[unit] * count, 3)


def measure(direct_port: int, gateway_port: int, backend: int, gateway: int) -> dict[str, Any]:
    """Every figure, from two ports and the processes behind them."""
    seconds = ("--seconds", str(_SECONDS))
    _load(gateway_port, 8, gateway, "--seconds", "1")  # warm: code paths, kept connections
    _say(f"  direct, {TOKENS} tokens in one write")
    direct = {clients: _load(direct_port, clients, backend, *seconds) for clients in _CLIENTS}
    _say("  through the gateway")
    through = {clients: _load(gateway_port, clients, gateway, *seconds) for clients in _CLIENTS}
    _say(f"  through the gateway, {_SUSTAINED_REQUESTS} requests in a row")
    sustained = _load(gateway_port, 64, gateway, "--requests", str(_SUSTAINED_REQUESTS))
    _say(f"  direct and through the gateway, a token every {_PACE_MS} ms")
    pace = ("--seconds", str(_PACED_SECONDS), "--pace-ms", str(_PACE_MS))
    _load(direct_port, 64, backend, *pace)
    paced = _load(gateway_port, 64, gateway, *pace)
    one = 1
    return {
        "bench": "gateway",
        "tokens_per_request": TOKENS,
        "direct_rps": {clients: round(seen["rps"]) for clients, seen in direct.items()},
        "rps": {clients: round(seen["rps"]) for clients, seen in through.items()},
        "rps_per_core": {clients: round(seen["requests"] / seen["cpu_s"]) for clients, seen in through.items()},
        # One client waits for nobody but the gateway; with more, the difference is mostly queueing for the machine.
        "added_p50_ms": round(through[one]["p50_ms"] - direct[one]["p50_ms"], 3),
        "added_p99_ms": round(through[one]["p99_ms"] - direct[one]["p99_ms"], 3),
        "stream_tok_s": round(through[64]["tok_s"]),
        "cpu_s_per_1000": {clients: _per(seen, "requests", 1000) for clients, seen in through.items()},
        "cpu_s_per_100k_tokens": {"burst": _per(through[64], "tokens", 1e5), "paced": _per(paced, "tokens", 1e5)},
        "sustained": {
            "requests": sustained["requests"],
            "rps": round(sustained["rps"]),
            "cpu_s_per_1000": _per(sustained, "requests", 1000),
        },
        "failed": sum(seen["failed"] for seen in (*direct.values(), *through.values(), sustained, paced)),
    }


def main() -> None:
    """Start the processes, measure, print."""
    _say("gateway: what it adds to a request, and what it costs")
    with ExitStack() as stack:
        direct_port, gateway_port = _free_port(), _free_port()
        backend = stack.enter_context(_process("backend", direct_port))
        gateway = stack.enter_context(_process("serve", gateway_port, f"127.0.0.1:{direct_port}"))
        result = measure(direct_port, gateway_port, backend, gateway)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
