"""The sampler, against the definition of each parameter."""

import math
import random
from collections import Counter

import numpy as np
import pytest

from moorage_runtime.engine.admission import LARGEST, sampling_problem
from moorage_runtime.engine.messages import SamplingParams, Submit
from moorage_runtime.engine.sequence import Sequence
from moorage_runtime.model.draw import PREFILTER, draw, uniform
from moorage_runtime.model.sampler import sample

WIDE = 4 * PREFILTER


def sequence(sampling, prompt=(1,), output=()):
    made = Sequence.of(Submit("x", list(prompt), 10_000, sampling), 1, 100_000)
    made.tokens += output
    return made


def logits_of(*probabilities):
    with np.errstate(divide="ignore"):
        return np.log(np.array(probabilities)).astype(np.float32)


def draws(logits, count=4000, **sampling):
    """How often each token comes, over so many seeds in one batch."""
    rows = [sequence(SamplingParams(seed=seed, **sampling)) for seed in range(count)]
    results = sample(np.broadcast_to(logits, (count, len(logits))), rows)
    return Counter(result.token_id for result in results)


def one(logits, output=(), prompt=(1,), **sampling):
    (result,) = sample(np.float32([logits]), [sequence(SamplingParams(**sampling), prompt, output)])
    return result


def normal(rows, spread, seed=0):
    return (np.random.default_rng(seed).standard_normal((rows, WIDE)) * spread).astype(np.float32)


def test_temperature_zero_takes_the_lowest_id_of_the_best():
    assert one([0.0, 3.0, 1.0, 3.0], temperature=0.0).token_id == 1


def test_pure_sampling_follows_the_probabilities():
    probabilities = [0.5, 0.0, 0.3, 0.2]
    counts = draws(logits_of(*probabilities))
    assert counts[1] == 0
    for token, probability in enumerate(probabilities):
        assert counts[token] / 4000 == pytest.approx(probability, abs=0.03)


def test_temperature_flattens():
    share = draws(np.float32([2.0, 0.0]), temperature=2.0)[0] / 4000
    assert share == pytest.approx(1 / (1 + math.exp(-1)), abs=0.03)


def test_top_k_keeps_the_k_best_in_their_proportion():
    counts = draws(logits_of(0.1, 0.4, 0.3, 0.2), top_k=2)
    assert set(counts) == {1, 2}
    assert counts[1] / 4000 == pytest.approx(4 / 7, abs=0.03)


@pytest.mark.parametrize(("top_p", "kept"), [(0.4, {1}), (0.41, {1, 2}), (0.71, {1, 2, 3}), (0.95, {0, 1, 2, 3})])
def test_top_p_keeps_the_smallest_set_that_reaches_the_mass(top_p, kept):
    assert set(draws(logits_of(0.1, 0.4, 0.3, 0.2), top_p=top_p)) == kept


def test_min_p_drops_what_is_far_below_the_best():
    assert set(draws(logits_of(0.1, 0.4, 0.3, 0.2), min_p=0.45)) == {1, 2, 3}


def test_a_flat_distribution_is_not_cut_at_the_prefilter():
    counts = draws(np.zeros(WIDE, np.float32), count=6000, top_p=0.9)
    assert len(counts) > 0.7 * WIDE
    assert max(counts) < math.ceil(0.9 * WIDE)


def test_top_k_beyond_the_prefilter_is_not_cut():
    assert len(draws(np.zeros(WIDE, np.float32), count=6000, top_k=2 * PREFILTER)) > PREFILTER


KINDS = [
    {"temperature": 0.0},
    {},
    {"top_p": 0.9},
    {"top_p": 0.999},
    {"top_k": 5},
    {"top_k": 900, "top_p": 0.7},
    {"min_p": 0.01, "presence_penalty": 1.0},
    {"temperature": 1.7, "top_p": 0.5, "repetition_penalty": 1.3, "logprobs": 5},
    {"temperature": 0.0, "frequency_penalty": 0.4, "logit_bias": {9: 3.0}, "logprobs": 0},
]


@pytest.mark.parametrize("seed", range(8))
def test_a_row_does_not_depend_on_its_neighbours_to_the_last_bit(seed):
    chance = random.Random(seed)
    logits = normal(24, 3.0, seed)
    rows = [
        sequence(SamplingParams(seed=9, **chance.choice(KINDS)), (5, 6), [chance.randrange(WIDE) for _ in range(6)])
        for _ in logits
    ]
    alone = [sample(logits[index : index + 1].copy(), [row])[0] for index, row in enumerate(rows)]
    for _ in range(6):
        chosen = chance.sample(range(len(rows)), chance.randint(1, len(rows)))
        # Rows of a wider array lie anywhere in memory, as those of a library do.
        wider = np.zeros((len(chosen), WIDE + 3), np.float32)
        wider[:, 1:-2] = logits[chosen]
        assert sample(wider[:, 1:-2], [rows[index] for index in chosen]) == [alone[index] for index in chosen]
        assert np.array_equal(wider[:, 1:-2], logits[chosen]), "the caller's logits were written to"


def by_definition(logits, sampling, noise):
    """The token, by sorting everything."""
    weights = np.exp((logits - logits.max()) * np.float32(1 / sampling.temperature)).astype(np.float64)
    order = np.lexsort((np.arange(len(weights)), -weights))
    if not (sampling.top_k or sampling.top_p < 1 or sampling.min_p):
        order = np.arange(len(weights))
    elif sampling.top_k:
        order = order[: sampling.top_k]
    mass = weights[order].cumsum()
    if sampling.top_p < 1:
        order = order[np.concatenate(([0.0], mass[:-1])) < sampling.top_p * mass[-1]]
    order = order[weights[order] >= sampling.min_p]
    return int(order[(weights[order].cumsum() <= noise * weights[order].sum()).sum()])


@pytest.mark.parametrize("spread", [0.0, 0.5, 2.0, 6.0])
@pytest.mark.parametrize("min_p", [0.0, 0.02])
@pytest.mark.parametrize("top_p", [1.0, 0.95, 0.3])
@pytest.mark.parametrize("top_k", [0, 1, 40, PREFILTER, 2 * PREFILTER, 10 * WIDE])
def test_the_token_is_that_of_the_definition(spread, min_p, top_p, top_k):
    logits = normal(20, spread, 3)
    logits[:, 100:200] = logits[:, :100]  # equals
    asked = [SamplingParams(0.8, top_p, top_k, min_p, seed=seed) for seed in range(len(logits))]
    results = sample(logits, [sequence(sampling) for sampling in asked])
    expected = [by_definition(row, s, uniform(s.seed, 1)) for row, s in zip(logits, asked, strict=True)]
    assert [result.token_id for result in results] == expected


def test_the_ends_of_the_noise_bring_tokens_that_can_be_drawn():
    weights = np.zeros(3000, np.float32)
    weights[[700, 701, 2999]] = [0.3, 1.0, 1e-30]
    for sampling in (SamplingParams(), SamplingParams(top_p=1 - 1e-12), SamplingParams(top_k=2500)):
        found = [draw(weights, sampling, noise) for noise in (0.0, 0.5, 1 - 2**-53)]
        assert set(found) == {700, 701}


def test_drawing_without_a_seed_is_a_mistake():
    with pytest.raises(ValueError, match="request 'x' draws without a seed"):
        one([0.0, 1.0])


def test_noise_is_uniform_and_a_function_of_seed_and_position_alone():
    values = [uniform(seed, position) for seed in range(50) for position in range(50)]
    assert len(set(values)) == len(values)
    assert all(0 <= value < 1 for value in values)
    assert sum(values) / len(values) == pytest.approx(0.5, abs=0.02)
    assert uniform(2**63 + 5, 3) == uniform(2**63 + 5, 3) != uniform(5, 3)


def test_repetition_penalty_pushes_down_what_prompt_and_output_have():
    assert one([2.0, 1.9, -1.0], temperature=0.0, repetition_penalty=2.0, prompt=(0,)).token_id == 1
    assert one([-1.0, -1.5, -9.0], temperature=0.0, repetition_penalty=2.0, prompt=(2,), output=(0,)).token_id == 1


def test_presence_penalty_counts_the_output_once_and_not_the_prompt():
    assert one([2.0, 1.9], temperature=0.0, presence_penalty=0.5, prompt=(0,)).token_id == 0
    assert one([2.0, 1.4], temperature=0.0, presence_penalty=0.5, output=(0, 0)).token_id == 0
    assert one([2.0, 1.6], temperature=0.0, presence_penalty=0.5, output=(0, 0)).token_id == 1


def test_frequency_penalty_counts_every_time():
    assert one([2.0, 1.4], temperature=0.0, frequency_penalty=0.5, output=(0,)).token_id == 0
    assert one([2.0, 1.4], temperature=0.0, frequency_penalty=0.5, output=(0, 0)).token_id == 1


def test_logit_bias_moves_the_choice():
    assert one([2.0, 1.0, 0.0], temperature=0.0, logit_bias={2: 5.0}).token_id == 2
    assert one([2.0, 1.0, 0.0], temperature=0.0, logit_bias={0: -100.0}).token_id == 1


def test_logprobs_are_of_the_model_before_penalties_and_temperature():
    logits = [1.0, 2.0, 3.0]
    expected = [logit - math.log(sum(map(math.exp, logits))) for logit in logits]
    result = one(logits, temperature=0.0, logit_bias={0: 100.0}, logprobs=2)
    assert result.token_id == 0
    assert result.logprobs.chosen == pytest.approx(expected[0])
    assert [token for token, _ in result.logprobs.top] == [2, 1]
    assert [value for _, value in result.logprobs.top] == pytest.approx([expected[2], expected[1]])


def test_the_most_likely_tokens_are_those_of_a_whole_sort():
    logits = normal(1, 2.0)[0]
    logits[[5, 4000]] = logits.max()
    result = one(logits, temperature=0.0, logprobs=20)
    order = np.lexsort((np.arange(WIDE), -logits))[:20]
    assert [token for token, _ in result.logprobs.top] == order.tolist()
    assert result.token_id == order[0]


def test_only_those_who_ask_get_logprobs():
    rows = [sequence(SamplingParams(temperature=0.0, logprobs=wanted)) for wanted in (None, 0, 1)]
    results = sample(normal(3, 1.0), rows)
    assert [None if r.logprobs is None else len(r.logprobs.top) for r in results] == [None, 0, 1]


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_row_without_finite_numbers_brings_no_token_and_spoils_no_other(broken):
    rows = [sequence(SamplingParams(temperature=0.5, seed=1)), sequence(SamplingParams(temperature=0.0))]
    results = sample(np.float32([[broken, 0.0], [0.0, 1.0]]), rows)
    assert [result.token_id for result in results] == [None, 1]


@pytest.mark.parametrize(
    "extreme",
    [
        {"repetition_penalty": 1 / LARGEST},
        {"repetition_penalty": LARGEST},
        {"presence_penalty": -LARGEST, "frequency_penalty": -LARGEST},
        {"logit_bias": {3: LARGEST, 4: -LARGEST}},
        {"temperature": 1e-6},
        {"temperature": LARGEST},
        {"top_p": 1e-9},
        {"min_p": 1.0},
        {"top_k": 2**31 - 1, "top_p": 0.5, "min_p": 0.5},
    ],
)
@pytest.mark.parametrize("truncated", [{}, {"top_p": 0.9}, {"top_k": 5}])
@pytest.mark.parametrize("masked", [False, True])
def test_what_admission_lets_through_draws_a_token(extreme, truncated, masked):
    assert sampling_problem(SamplingParams(**truncated | extreme), WIDE) is None
    (logits,) = normal(1, spread=10.0)
    if masked:
        logits[5:] = -np.inf
    result = one(logits, prompt=(1, 2), output=(3, 3), **{"seed": 1} | truncated | extreme)
    assert 0 <= result.token_id < (5 if masked else WIDE)
