"""Engines over a model in memory, and requests run to their ends."""

import time
from pathlib import Path

from moorage_runtime.engine.blocks import blocks_for
from moorage_runtime.engine.core import Engine
from moorage_runtime.engine.messages import SamplingParams, Submit
from moorage_runtime.engine.plan import Limits
from moorage_runtime.model.checkpoint import open_checkpoint
from moorage_runtime.model.device import Device
from moorage_runtime.model.torch_path.load import TorchModel, load

CONTEXT = 1024
ROWS = 64
_GREEDY = SamplingParams(temperature=0.0)


def loaded(path: Path, device: Device, dtype: str | None) -> TorchModel:
    """The model on the device; None is the type that it is served in."""
    return load(open_checkpoint(path), device, dtype, lambda _done: None)


def engine_of(model: TorchModel) -> Engine:
    """An engine for `ROWS` requests at once."""
    blocks = ROWS * blocks_for(CONTEXT)
    limits = Limits(CONTEXT, model.config.vocab_size, blocks, max_running=ROWS, token_budget=1024)
    return Engine(model.runner(limits), limits)


def answers(engine: Engine, prompts: list[list[int]], max_tokens: int, stop: tuple[int, ...] = ()) -> list[list[int]]:
    """The greedy tokens of all prompts, computed together."""
    found: dict[str, list[int]] = {str(index): [] for index in range(len(prompts))}
    for name, prompt in zip(found, prompts, strict=True):
        engine.submit(Submit(name, prompt, max_tokens, _GREEDY, list(stop)), time.monotonic())
    while engine.has_work:
        for output in engine.step(time.monotonic()).outputs:
            if output.error:
                raise RuntimeError(output.error)
            found[output.id] += output.token_ids
    engine.check()
    return list(found.values())


def tokens_per_second(engine: Engine, vocabulary: int, rows: int, tokens: int) -> float:
    """Tokens generated per second while `rows` requests decode together, from the end of their prompts on."""
    for index in range(rows):
        # Prompts that share no prefix with those of earlier calls.
        prompt = [(17 * index + 31 * at + rows) % vocabulary for at in range(32)]
        engine.submit(Submit(f"{rows}-{index}", prompt, tokens, _GREEDY), time.monotonic())
    steps: list[tuple[float, int]] = []
    while engine.has_work:
        outputs = engine.step(time.monotonic()).outputs
        steps.append((time.perf_counter(), sum(len(output.token_ids) for output in outputs)))
    full = [step for step in steps if step[1] == rows]
    return sum(count for _, count in full[1:]) / (full[-1][0] - full[0][0])
