"""Measures the runtime beside its peers: `python -m bench.runtime`. Progress on stderr, one JSON line last.

Two classes of servers, each of one checkpoint: bf16, and the same model as GGUF. The servers of a class stay up and
are stopped while another one is measured; rounds are interleaved and ratios are taken within a round, because what else
runs on a machine changes by the minute. README.md beside this file says what is measured, how, and of which builds.
"""

import json
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

from bench.runtime import result
from bench.runtime.cells import CELLS
from bench.runtime.environments import cache
from bench.runtime.machine import machine
from bench.runtime.options import Options, read
from bench.runtime.run import Run
from bench.runtime.say import say
from bench.runtime.state import State, latest
from bench.runtime.table import table


def main(argv: Sequence[str] | None = None) -> None:
    """Set up, measure, report."""
    run = _begin(read(argv))
    # By default it ends the process at once, and the servers, some of them stopped, would stay for ever.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    run.measure()
    ratios = result.ratios(run.measured)
    rows = result.rows(run.measured, {cell.name: cell for cell in CELLS})
    say(table(rows, ratios))
    for peer, reason in run.missing.items():
        say(f"\nnot measured to the end: {peer}: {reason}")
    print(json.dumps(report(run, rows, ratios)))


def report(run: Run, rows: Sequence[dict[str, Any]], ratios: Sequence[result.Ratio]) -> dict[str, Any]:
    """The JSON line."""
    return {
        "bench": "runtime",
        "machine": machine(),
        "builds": run.builds,
        "missing": run.missing,
        "rows": rows,
        "ratios": [
            {"class": ratio.class_name, "cell": ratio.cell, "peer": ratio.peer}
            | {"ratio": round(ratio.value, 2), "goal": ratio.goal}
            for ratio in ratios
        ],
        "ratio_min": result.lowest(ratios),
        "steps": run.steps,
        # Shares by class and rows; a share that was not measured is left out.
        **{
            share: {name: steps[share] for name, steps in run.steps.items() if share in steps}
            for share in ("roofline_share", "non_gemm_share")
        },
    }


def _begin(options: Options) -> Run:
    """A new run, or the last one taken up again."""
    folder = cache() / "runs"
    if options.resume:
        state = State(latest(folder))
        measured = state.resume(options.timing)
        say(f"going on with {state.path}: {len(measured)} windows are measured")
        return Run(options, state, measured)
    state = State(folder / f"{time.strftime('%Y%m%d-%H%M%S')}.jsonl")
    state.begin(options.timing)
    say(f"windows are kept in {state.path}; RESUME=1 goes on with it")
    return Run(options, state, [])


if __name__ == "__main__":
    main()
