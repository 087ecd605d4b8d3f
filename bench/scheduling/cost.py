"""What a step costs, as a straight line: so much at all, for each decoding row and for each prompt token."""

import time
from dataclasses import dataclass
from statistics import median

from moorage_runtime.engine.core import Engine
from moorage_runtime.engine.messages import SamplingParams, Submit

_DECODES = 24
_PROMPT = 128


@dataclass(frozen=True, slots=True)
class StepCost:
    """Seconds."""

    base: float
    row: float
    prompt_token: float

    def seconds(self, rows: int, prompt_tokens: int) -> float:
        """Of a step with so many decoding rows and prompt tokens."""
        return self.base + rows * self.row + prompt_tokens * self.prompt_token


def measure(engine: Engine, max_running: int) -> StepCost:
    """The line through steps of one row, of all rows, and of a prompt."""
    one = _decode_seconds(engine, 1)
    full = _decode_seconds(engine, max_running) if max_running > 1 else one
    row = max(0.0, (full - one) / max(1, max_running - 1))
    base = max(0.0, one - row)
    return StepCost(base, row, max(0.0, _prompt_seconds(engine) - base) / _PROMPT)


def _decode_seconds(engine: Engine, rows: int) -> float:
    for row in range(rows):
        engine.submit(request(f"cost-{rows}-{row}", [row + 1, rows, *range(14)], _DECODES))
    return median(_steps(engine)[1:])


def _prompt_seconds(engine: Engine) -> float:
    seconds = []
    for attempt in range(3):
        engine.submit(request(f"cost-prompt-{attempt}", [attempt] * _PROMPT, 1))
        seconds.append(sum(_steps(engine)))
    return min(seconds)


def _steps(engine: Engine) -> list[float]:
    """CPU-seconds of each step until the engine is idle."""
    seconds = []
    while engine.has_work:
        began = time.process_time()
        engine.step()
        seconds.append(time.process_time() - began)
    return seconds


def request(name: str, prompt: list[int], out: int, priority: int = 0) -> Submit:
    """A greedy request that nothing but its length ends."""
    return Submit(name, prompt, out, SamplingParams(temperature=0.0), priority=priority)
