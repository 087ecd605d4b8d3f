"""The sampler, against the definition of each parameter."""

import math
from collections import Counter

import pytest
import torch

from moorage_runtime.engine.messages import SamplingParams, Submit
from moorage_runtime.engine.sequence import Sequence
from moorage_runtime.model.sampler import PREFILTER, sample, uniform

WIDE = 4 * PREFILTER


def sequence(sampling, prompt=(1,), output=()):
    made = Sequence.of(Submit("x", list(prompt), 10_000, sampling), 1, 100_000)
    made.tokens += output
    return made


def draws(logits, count=4000, **sampling):
    """How often each token comes, over so many seeds in one batch."""
    rows = [sequence(SamplingParams(seed=seed, **sampling)) for seed in range(count)]
    results = sample(logits.expand(count, -1), rows)
    return Counter(result.token_id for result in results)


def one(logits, output=(), prompt=(1,), **sampling):
    (result,) = sample(torch.tensor([logits]), [sequence(SamplingParams(**sampling), prompt, output)])
    return result


def test_temperature_zero_takes_the_lowest_id_of_the_best():
    assert one([0.0, 3.0, 1.0, 3.0], temperature=0.0).token_id == 1


def test_pure_sampling_follows_the_probabilities():
    probabilities = torch.tensor([0.5, 0.0, 0.3, 0.2])
    counts = draws(probabilities.log())
    assert counts[1] == 0
    for token, probability in enumerate(probabilities.tolist()):
        assert counts[token] / 4000 == pytest.approx(probability, abs=0.03)


def test_temperature_flattens():
    logits = torch.tensor([2.0, 0.0])
    share = draws(logits, temperature=2.0)[0] / 4000
    assert share == pytest.approx(1 / (1 + math.exp(-1)), abs=0.03)


def test_top_k_keeps_the_k_best_in_their_proportion():
    counts = draws(torch.tensor([0.1, 0.4, 0.3, 0.2]).log(), top_k=2)
    assert set(counts) == {1, 2}
    assert counts[1] / 4000 == pytest.approx(4 / 7, abs=0.03)


@pytest.mark.parametrize(("top_p", "kept"), [(0.4, {1}), (0.41, {1, 2}), (0.71, {1, 2, 3}), (0.95, {0, 1, 2, 3})])
def test_top_p_keeps_the_smallest_set_that_reaches_the_mass(top_p, kept):
    assert set(draws(torch.tensor([0.1, 0.4, 0.3, 0.2], dtype=torch.float64).log().float(), top_p=top_p)) == kept


def test_min_p_drops_what_is_far_below_the_best():
    assert set(draws(torch.tensor([0.1, 0.4, 0.3, 0.2]).log(), min_p=0.45)) == {1, 2, 3}


def test_a_flat_distribution_is_not_cut_at_the_prefilter():
    counts = draws(torch.zeros(WIDE), count=6000, top_p=0.9)
    assert len(counts) > 0.85 * WIDE
    assert len(counts) <= math.ceil(0.9 * WIDE)


def test_top_k_beyond_the_prefilter_is_not_cut():
    assert len(draws(torch.zeros(WIDE), count=6000, top_k=2 * PREFILTER)) > PREFILTER


def test_the_token_does_not_depend_on_the_neighbours():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, WIDE, generator=generator) * 3
    kinds = [
        {"temperature": 0.0},
        {},
        {"top_p": 0.999},
        {"top_k": 5},
        {"min_p": 0.01, "presence_penalty": 1.0},
        {"temperature": 1.7, "top_p": 0.5, "repetition_penalty": 1.3},
    ]
    rows = [sequence(SamplingParams(seed=9, **kind), prompt=(5, 6), output=(7, 8)) for kind in kinds]
    together = [result.token_id for result in sample(logits, rows)]
    alone = [sample(logits[index : index + 1], [row])[0].token_id for index, row in enumerate(rows)]
    assert together == alone


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
    expected = torch.tensor(logits).log_softmax(-1).tolist()
    result = one(logits, temperature=0.0, logit_bias={0: 100.0}, logprobs=2)
    assert result.token_id == 0
    assert result.logprobs.chosen == pytest.approx(expected[0])
    assert [token for token, _ in result.logprobs.top] == [2, 1]
    assert [value for _, value in result.logprobs.top] == pytest.approx([expected[2], expected[1]])


def test_only_those_who_ask_get_logprobs():
    rows = [sequence(SamplingParams(temperature=0.0, logprobs=wanted)) for wanted in (None, 0, 1)]
    results = sample(torch.randn(3, 8, generator=torch.Generator().manual_seed(1)), rows)
    assert [None if r.logprobs is None else len(r.logprobs.top) for r in results] == [None, 0, 1]


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_row_without_finite_numbers_brings_no_token_and_spoils_no_other(broken):
    rows = [sequence(SamplingParams(temperature=0.5, seed=1)), sequence(SamplingParams(temperature=0.0))]
    results = sample(torch.tensor([[broken, 0.0], [0.0, 1.0]]), rows)
    assert [result.token_id for result in results] == [None, 1]
