"""What a request gets does not depend on how it was scheduled: chunks, neighbours, preemption, order of arrival."""

import pytest

from moorage_runtime.engine.messages import SamplingParams, Submit

GREEDY = SamplingParams(temperature=0.0)
SAMPLED = SamplingParams(temperature=1.5, seed=11)
PROMPTS = [[(7 * index + 3 * at) % 211 for at in range(length)] for index, length in enumerate((3, 70, 16, 33, 1, 50))]


def run(engine, requests):
    """({id: tokens}, preemptions)."""
    for request in requests:
        engine.submit(request)
    tokens, preemptions = {request.id: [] for request in requests}, 0
    while engine.has_work:
        report = engine.step()
        preemptions += report.preemptions
        for output in report.outputs:
            assert not output.error
            tokens[output.id] += output.token_ids
    engine.check()
    return tokens, preemptions


def requests(sampling, max_tokens=24):
    return [Submit(str(index), prompt, max_tokens, sampling) for index, prompt in enumerate(PROMPTS)]


@pytest.fixture(scope="module")
def alone(engine_of):
    """Each request by itself, its prompt in one chunk."""

    def compute(sampling, max_tokens=24):
        engine = engine_of(token_budget=1024)
        return {r.id: run(engine, [r])[0][r.id] for r in requests(sampling, max_tokens)}

    return compute


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED, SamplingParams(temperature=1.5, top_p=0.9, top_k=50, seed=3)])
def test_batched_is_alone(engine_of, alone, sampling):
    assert run(engine_of(), requests(sampling))[0] == alone(sampling)


@pytest.mark.parametrize("budget", [16, 17, 31, 40])
def test_chunked_is_whole(engine_of, alone, budget):
    assert run(engine_of(token_budget=budget), requests(GREEDY))[0] == alone(GREEDY)


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
def test_preempted_is_undisturbed(engine_of, alone, sampling):
    tokens, preemptions = run(engine_of(total_blocks=16), requests(sampling, 80))
    assert preemptions > 0
    assert tokens == alone(sampling, 80)


def test_the_same_seed_gives_the_same_and_another_another(engine_of):
    prompt = PROMPTS[1]
    seeds = [1, 1, 2]
    asked = [Submit(str(i), prompt, 24, SamplingParams(temperature=2.0, seed=seed)) for i, seed in enumerate(seeds)]
    tokens, _ = run(engine_of(), asked)
    assert tokens["0"] == tokens["1"] != tokens["2"]


def test_cancelling_in_the_middle_leaves_the_neighbours_alone(engine_of, alone):
    engine = engine_of(total_blocks=20)
    for request in requests(GREEDY):
        engine.submit(request)
    tokens = {str(index): [] for index in range(len(PROMPTS))}
    for step in range(1000):
        if step == 5:
            held = engine.kv_utilization
            engine.cancel("1")
            assert engine.kv_utilization < held
        for output in engine.step().outputs:
            tokens[output.id] += output.token_ids
        if not engine.has_work:
            break
    engine.check()
    assert engine.kv_utilization == 0
    whole = alone(GREEDY)
    assert tokens.pop("1") == whole.pop("1")[:5]
    assert tokens == whole
