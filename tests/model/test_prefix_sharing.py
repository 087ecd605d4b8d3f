"""Shared, paused, evicted, recomputed: the real model, in the type it is shipped in, says what it says alone."""

import pytest

from moorage_runtime.engine import policy
from moorage_runtime.engine.messages import SamplingParams, Submit

pytestmark = pytest.mark.model

STEM = [(7 * index * index + 13 * index) % 40_000 for index in range(75)]
"""A prompt as good as any other: what is compared is computed twice."""


@pytest.fixture(scope="module")
def shipped(room, smollm2_path):
    return room(smollm2_path, "native", None)


def requests():
    """Prompts that share 0 to 4 blocks, some of them the same with seeds of their own, greedy and sampled."""
    prompts = [STEM, STEM, STEM[:64], STEM[:40] + STEM[:30], [*STEM[:70], 5, 6, 7], STEM[20:60], STEM]
    return [
        Submit(
            f"r{index}",
            prompt,
            30,
            SamplingParams(temperature=0.8 * (index % 2), seed=index, logprobs=0),
            priority=-index,
        )
        for index, prompt in enumerate(prompts)
    ]


def run(engine, asked):
    """(tokens and log-probabilities of each request, cached prompt tokens, preemptions) of all together."""
    got, cached, preemptions = {request.id: [] for request in asked}, 0, 0
    for request in asked:
        engine.submit(request)
    while engine.has_work:
        report = engine.step()
        cached += report.cached_prompt_tokens
        preemptions += report.preemptions
        for output in report.outputs:
            assert not output.error
            got[output.id] += zip(output.token_ids, [known.chosen for known in output.logprobs], strict=True)
    engine.check()
    return got, cached, preemptions


@pytest.fixture(scope="module")
def alone(shipped):
    """Each in an engine of its own, whose cache is empty, its prompt in one piece."""
    return {request.id: run(shipped.engine(), [request])[0][request.id] for request in requests()}


@pytest.mark.parametrize("name", policy.NAMES)
def test_many_over_few_blocks_get_what_they_get_alone(shipped, alone, name):
    """Sixteen blocks, two places and small chunks: sequences share, pause, lose their blocks and find some again."""
    engine = shipped.engine(policy=name, context_length=128, total_blocks=16, max_running=2, token_budget=24)
    got, cached, _ = run(engine, requests())
    assert got == alone
    assert cached > 0


def test_a_burst_of_one_prompt_shares_it(shipped, alone):
    engine = shipped.engine(token_budget=64)
    got, cached, _ = run(engine, requests())
    assert got == alone
    assert cached >= 4 * 64  # all but the first, and but what begins otherwise


def test_a_second_round_finds_the_first(shipped, alone):
    engine = shipped.engine()
    run(engine, requests())
    got, cached, _ = run(engine, requests())
    assert got == alone
    assert cached > 300


def test_preempted_for_want_of_memory(shipped, alone):
    engine = shipped.engine(context_length=128, total_blocks=14, max_running=7)
    got, _, preemptions = run(engine, requests())
    assert got == alone
    assert preemptions > 0
