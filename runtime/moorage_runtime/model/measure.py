"""What a step of this model costs on this machine, in seconds and bytes: measured before the engine takes requests."""

import time

from moorage_runtime.engine.blocks import blocks_for
from moorage_runtime.engine.messages import MAX_LOGPROBS, SamplingParams
from moorage_runtime.engine.plan import Chunk, Runner, StepPlan
from moorage_runtime.engine.sequence import Sequence
from moorage_runtime.model.loaded import LoadedModel

STEP_SECONDS = 0.08
"""How long chunks of prompts may hold a step, and so the streams of others, back."""
_PROBE_TOKENS = 128
_BUDGET_RANGE = (64, 2048)
# Every working buffer at once: probabilities, candidates, log-probabilities.
_COSTLY = SamplingParams(top_p=0.9, seed=0, presence_penalty=0.1, logprobs=MAX_LOGPROBS)


def token_budget(model: LoadedModel) -> int:
    """Tokens that a step computes in about `STEP_SECONDS`, a multiple of 16."""
    runner = model.probe(blocks_for(_PROBE_TOKENS))
    plan = StepPlan((_chunk("probe", _PROBE_TOKENS, _PROBE_TOKENS),), ())
    runner.execute(plan)
    seconds = min(_timed(runner, plan) for _ in range(3))
    tokens = int(STEP_SECONDS * _PROBE_TOKENS / seconds) // 16 * 16
    return min(max(tokens, _BUDGET_RANGE[0]), _BUDGET_RANGE[1])


def largest_step(model: LoadedModel, context_length: int, max_running: int, budget: int) -> None:
    """Compute a step as large as they come, so that this process afterwards occupies what it will ever need.

    All sequences are at the end of their context and one of them brings a whole budget of prompt. One layer is enough,
    because the layers use the same working memory one after the other; the cache is one block that all share, because
    what is in it does not matter.
    """
    runner = model.probe(1, layers=1)
    counts = [min(budget, context_length), *[1] * (max_running - 1)]
    chunks = tuple(_chunk(str(index), context_length, count) for index, count in enumerate(counts))
    runner.execute(StepPlan(chunks, ()))


def _chunk(name: str, length: int, count: int) -> Chunk:
    sequence = Sequence(
        id=name,
        tokens=[0] * length,
        prompt_length=length,
        max_length=length + 1,
        sampling=_COSTLY,
        stop_token_ids=frozenset(),
        order=(0, 0),
        blocks=[0] * blocks_for(length),
    )
    return Chunk(sequence, length - count, count, samples=True)


def _timed(runner: Runner, plan: StepPlan) -> float:
    start = time.perf_counter()
    runner.execute(plan)
    return time.perf_counter() - start
