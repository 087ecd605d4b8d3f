"""In the types that are shipped a request gets the same tokens alone, batched, in chunks, preempted, from the cache."""

import random

import pytest

from moorage_runtime.engine.messages import SamplingParams, Submit

pytestmark = pytest.mark.model

LENGTHS = (1, 3, 15, 16, 17, 31, 40, 64, 70, 120, 200, 5)
PREFIX = [7 + 3 * at for at in range(48)]


def requests():
    """Greedy and drawn ones; half of them share a prefix, so that blocks of one are found by another."""
    rng = random.Random(3)
    made = []
    for index, length in enumerate(LENGTHS):
        prompt = (PREFIX if index % 2 else []) + [rng.randrange(5, 49_000) for _ in range(length)]
        drawn = SamplingParams(temperature=1.0, top_p=0.95, seed=index)
        how = drawn if index % 3 == 0 else SamplingParams(temperature=0.0)
        made.append(Submit(str(index), prompt, 40, how, []))
    return made


@pytest.fixture(
    scope="module",
    params=[("native", None), ("native", "bfloat16"), ("2 ranks", None)],
    ids=["Q4_1", "bfloat16", "Q4_1 on 2 ranks"],
)
def shipped(request, room, smollm2_path):
    loaded = room(smollm2_path, *request.param)
    return loaded, {each.id: loaded.alone(each, token_budget=512).tokens for each in requests()}


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"token_budget": 16, "max_running": 16},
        {"token_budget": 37, "max_running": 5},
        {"total_blocks": 22, "context_length": 320},
    ],
    ids=["together", "chunks", "few at once", "preempted"],
)
def test_what_a_request_gets_does_not_depend_on_how_it_was_scheduled(shipped, limits):
    loaded, alone = shipped
    answers, preemptions = loaded.answer(requests(), **limits)
    assert {name: answer.tokens for name, answer in answers.items()} == alone
    assert (preemptions > 0) == ("total_blocks" in limits)


@pytest.mark.parametrize("seed", range(3))
def test_nor_on_when_others_came(shipped, seed):
    loaded, alone = shipped
    rng = random.Random(seed)
    mixed = rng.sample(requests(), len(LENGTHS))
    later = {step: [request] for step, request in zip(range(1, 40, 3), mixed[3:], strict=False)}
    answers, _ = loaded.answer(mixed[:3], after=later, token_budget=rng.choice([24, 64, 200]))
    assert {name: answer.tokens for name, answer in answers.items()} == alone
