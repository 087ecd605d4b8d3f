"""Our engine without HTTP: `python -m bench.runtime.steps MODEL`. What a step costs at 1, 8, 16 and 64 rows.

One line of JSON: milliseconds of a step, tokens per second, and the share of the memory roofline: the time in which
this machine can read the weights once, over the time of the step. (With many rows a step is bound by arithmetic, not by
memory: its share is low there in any engine.)
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.runtime.memory import read_bandwidth
from bench.runtime.say import say
from moorage_runtime.engine.core import Engine
from moorage_runtime.engine.messages import Loading, SamplingParams, Started, Submit
from moorage_runtime.model.native import NativeRunner
from moorage_runtime.model.settings import Settings
from moorage_runtime.model.start import start

ROWS = (1, 8, 16, 64)
_PROMPT = 32
_STEPS = 48
_CONTEXT = 1536
_REPEATS = 3


@dataclass(frozen=True)
class Steps:
    """Steps in which every row was one token of another request."""

    rows: int
    seconds: tuple[float, ...]
    products: float | None
    """Seconds of all of them that were spent in matrix products; None where nobody counts them (torch)."""

    @property
    def non_gemm_share(self) -> float | None:
        """Part of the steps, our Python included, that was not spent in matrix products."""
        return None if self.products is None else 1 - self.products / sum(self.seconds)

    @property
    def median(self) -> float:
        """Seconds of a step."""
        return statistics.median(self.seconds)


def main(argv: Sequence[str] | None = None) -> None:
    """Load, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.runtime.steps", description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="folder with safetensors, or a GGUF file")
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, help="default: 1 8 16 64")
    asked = parser.parse_args(argv)
    engine, started = start(Settings(model=asked.model, max_running=max(asked.rows), context_length=_CONTEXT), _quiet)
    measured = [measure(engine, rows) for rows in asked.rows]
    print(json.dumps(result(started, measured, read_bandwidth(started.weight_bytes, started.threads))))


def measure(engine: Engine, rows: int) -> Steps:
    """Decode with `rows` requests at once, some times over."""
    seconds: list[float] = []
    products: list[int | None] = []
    for repeat in range(_REPEATS):
        for took, spent in _decode(engine, rows, repeat):
            seconds.append(took)
            products.append(spent)
    counted = [spent for spent in products if spent is not None]
    steps = Steps(rows, tuple(seconds), sum(counted) / 1e9 if len(counted) == len(seconds) else None)
    say(f"{rows:3} rows: {1000 * steps.median:.2f} ms a step, best {1000 * min(seconds):.2f} ms")
    return steps


def result(started: Started, measured: Sequence[Steps], bandwidth: float) -> dict[str, Any]:
    """What the command prints."""
    read = started.weight_bytes / bandwidth
    shares = {str(steps.rows): steps.non_gemm_share for steps in measured}
    counted = {rows: round(share, 3) for rows, share in shares.items() if share is not None}
    return ({"non_gemm_share": counted} if counted else {}) | {
        "kernels": started.kernels,
        "threads": started.threads,
        "weight_mib": round(started.weight_bytes / 2**20, 1),
        "read_gb_s": round(bandwidth / 1e9, 1),
        "step_ms": {str(steps.rows): round(1000 * steps.median, 2) for steps in measured},
        "step_ms_best": {str(steps.rows): round(1000 * min(steps.seconds), 2) for steps in measured},
        "tok_s": {str(steps.rows): round(steps.rows / steps.median, 1) for steps in measured},
        "roofline_share": {str(steps.rows): round(read / steps.median, 3) for steps in measured},
    }


def _decode(engine: Engine, rows: int, repeat: int) -> list[tuple[float, int | None]]:
    """Seconds of the steps in which every request decodes, and nanoseconds of each in matrix products."""
    for row in range(rows):
        # No two prompts begin alike: nothing of them is found in a cache.
        prompt = [1 + row, 1 + repeat, 1 + rows, *range(10, 10 + _PROMPT - 3)]
        sampling = SamplingParams(temperature=0.0)
        engine.submit(Submit(f"{rows}-{repeat}-{row}", prompt=prompt, max_tokens=_CONTEXT - _PROMPT, sampling=sampling))
    steps: list[tuple[float, int | None]] = []
    while len(steps) < _STEPS:
        before, began = _products_ns(engine), time.perf_counter()
        report = engine.step()
        took, after = time.perf_counter() - began, _products_ns(engine)
        if report.prompt_tokens == 0 and report.generated_tokens == rows:
            steps.append((took, None if before is None or after is None else after - before))
        elif not engine.has_work:
            raise SystemExit(f"{rows} requests were not computed together: {report.outputs}")
    engine.cancel_all()
    while engine.has_work:
        engine.step()
    return steps


def _products_ns(engine: Engine) -> int | None:
    """Spent in matrix products so far; None where the engine does not compute with the native library."""
    runner = engine._runner  # noqa: SLF001 - an engine has no business with what its runner counts
    return runner.counters.products_ns if isinstance(runner, NativeRunner) else None


def _quiet(_: Loading) -> None:
    """Nobody waits for this start."""


if __name__ == "__main__":
    main()
