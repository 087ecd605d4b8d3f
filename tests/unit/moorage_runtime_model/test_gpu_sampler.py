"""The GPU's sampler on CPU tensors: it chooses what the processor's does, in as many operations for any rows."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from moorage_runtime.engine.messages import SamplingParams
from moorage_runtime.engine.sequence import Sequence
from moorage_runtime.model import sampler
from moorage_runtime.model.torch_path import gpu_sampler

VOCABULARY = 3000
ASKED = {
    "greedy": SamplingParams(temperature=0.0),
    "pure": SamplingParams(seed=1),
    "hot": SamplingParams(temperature=1.7, seed=2),
    "top-k": SamplingParams(top_k=7, seed=3),
    "top-p": SamplingParams(top_p=0.9, seed=4),
    "min-p": SamplingParams(min_p=0.02, temperature=1.3, seed=5),
    "all of them": SamplingParams(top_k=40, top_p=0.8, min_p=0.01, temperature=0.7, seed=6),
    "nearly all": SamplingParams(top_p=0.999, temperature=2.0, seed=7),
    "repetition": SamplingParams(temperature=0.0, repetition_penalty=1.8),
    "presence and frequency": SamplingParams(presence_penalty=0.6, frequency_penalty=0.4, seed=8),
    "bias": SamplingParams(temperature=0.0, logit_bias={5: 9.0, 17: -100.0}),
    "bias of repeated": SamplingParams(frequency_penalty=0.5, logit_bias={3: 2.0}, repetition_penalty=1.2, seed=9),
}


def sequence(sampling, name="0", length=30):
    tokens = np.random.default_rng(length).integers(0, 40, length).tolist()
    return Sequence(
        id=name,
        tokens=tokens,
        prompt_length=10,
        max_length=1000,
        sampling=sampling,
        stop_token_ids=frozenset(),
        order=(0, 0),
    )


def logits_of(rows, seed=0):
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 3


def both(logits, sequences):
    return gpu_sampler.sample(logits, sequences), sampler.sample(logits.numpy(), sequences)


@pytest.mark.parametrize("sampling", ASKED.values(), ids=ASKED)
def test_chooses_what_the_processor_chooses(sampling):
    # Each row at another position, and so with other noise.
    ours, theirs = both(logits_of(40), [sequence(sampling, str(row), 20 + row) for row in range(40)])
    assert [each.token_id for each in ours] == [each.token_id for each in theirs]


def test_neighbours_do_not_change_a_row():
    sequences = [sequence(sampling, name) for name, sampling in ASKED.items()]
    logits = logits_of(len(sequences))
    together = gpu_sampler.sample(logits, sequences)
    alone = [gpu_sampler.sample(logits[row : row + 1], [each])[0] for row, each in enumerate(sequences)]
    assert together == alone


def test_logprobs_are_of_the_models_own_logits():
    asked = [SamplingParams(temperature=0.0, logprobs=3, logit_bias={9: 50.0}), SamplingParams(seed=1, logprobs=0)]
    ours, theirs = both(logits_of(2), [sequence(sampling) for sampling in asked])
    for own, other in zip(ours, theirs, strict=True):
        assert own.logprobs.chosen == pytest.approx(other.logprobs.chosen, abs=1e-5)
        assert [token for token, _ in own.logprobs.top] == [token for token, _ in other.logprobs.top]
        assert [value for _, value in own.logprobs.top] == pytest.approx([v for _, v in other.logprobs.top], abs=1e-5)


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_a_row_without_numbers_has_no_token_and_its_neighbours_have_theirs(broken):
    logits = logits_of(3)
    logits[1, 100] = broken
    sampled = gpu_sampler.sample(logits, [sequence(ASKED["top-p"])] * 3)
    assert sampled[1].token_id is None
    healthy = gpu_sampler.sample(logits[[0, 2]], [sequence(ASKED["top-p"])] * 2)
    assert [sampled[0], sampled[2]] == healthy


def test_a_draw_without_a_seed_is_an_error():
    with pytest.raises(ValueError, match="without a seed"):
        gpu_sampler.sample(logits_of(1), [sequence(SamplingParams())])


class Counted(TorchDispatchMode):
    """Counts the operations that a block runs."""

    def __init__(self):
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operations += 1
        return func(*args, **(kwargs or {}))


def test_more_rows_are_not_more_operations():
    counts = []
    for rows in (2, 16):
        asked = [sampling for _ in range(rows) for sampling in ASKED.values()]
        with Counted() as counted:
            gpu_sampler.choose(logits_of(len(asked)), [sequence(sampling) for sampling in asked])
        counts.append(counted.operations)
    assert counts[0] == counts[1]


def test_everything_stays_on_the_device(one_device):
    sequences = [sequence(sampling) for sampling in ASKED.values()]
    chosen = gpu_sampler.choose(torch.empty(len(sequences), VOCABULARY, device="meta"), sequences)
    assert (chosen.device.type, chosen.shape) == ("meta", (len(sequences),))
