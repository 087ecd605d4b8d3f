"""Whole steps: their numbers are torch's, and their bits depend on nothing but the sequence and the machine."""

import random
import threading

import numpy as np
import pytest
import torch

from moorage_runtime.engine.plan import Limits, StepPlan
from moorage_runtime.kernels.library import KernelsError
from moorage_runtime.model import native
from moorage_runtime.model.checkpoint import open_checkpoint
from moorage_runtime.model.torch_path.load import load as load_for_torch

LENGTHS = (1, 2, 15, 16, 17, 33, 64, 65, 130, 200)
LIMITS = {"context_length": 512, "vocab_size": 211, "total_blocks": 64, "max_running": 32, "token_budget": 1024}


def runner_of(folder, dtype=None, quantization=None, threads=1):
    model = native.load(open_checkpoint(folder, quantization), dtype, threads, lambda _done: None)
    return model.runner(Limits(**LIMITS))


def whole(kit, runner, feed):
    return kit.logits_of(runner, [feed.whole(index) for index in range(len(feed.sequences))])


@pytest.fixture(
    scope="module", params=["llama", "llama-biased", "mistral", "qwen2", "qwen3", "multi-head", "multi-query"]
)
def reference(request, kit, tmp_path_factory):
    """A model, and the logits that torch computes for it in float32, each sequence by itself."""
    folder = kit.write_model(tmp_path_factory.mktemp("model"), request.param)
    feed = kit.Feed(LENGTHS)
    torch_runner = load_for_torch(open_checkpoint(folder), "cpu", "float32", lambda _done: None).probe(feed.blocks)
    with torch.inference_mode():
        rows = {each.id: torch_runner._logits((feed.whole(int(each.id)),))[0].numpy() for each in feed.sequences}
    return folder, feed, rows


def test_logits_are_those_of_torch(kit, reference, instructions):
    folder, feed, expected = reference
    found = whole(kit, runner_of(folder, "float32"), feed)
    for name, row in expected.items():
        assert np.abs(found[name] - row).max() < 1e-4 * np.abs(row).max(), (instructions, name)


def test_bfloat16_is_near_float32(kit, reference):
    folder, feed, expected = reference
    found = whole(kit, runner_of(folder, "bfloat16"), feed)
    for name, row in expected.items():
        assert np.linalg.norm(found[name] - row) < 0.05 * np.linalg.norm(row)


def compositions(kit, feed, rng):
    """Steps that compute all sequences in random chunks beside random others."""
    computed = {each.id: 0 for each in feed.sequences}
    while left := [each for each in feed.sequences if computed[each.id] < each.length]:
        step = []
        for sequence in rng.sample(left, rng.randint(1, len(left))):
            start = computed[sequence.id]
            count = rng.choice([1, rng.randint(1, sequence.length - start), sequence.length - start])
            computed[sequence.id] += count
            step.append(kit.chunk(sequence, start, count))
        yield step


@pytest.mark.parametrize(
    ("dtype", "quantization"), [("float32", None), ("bfloat16", None), (None, "Int8"), (None, "Int4")]
)
def test_bits_do_not_depend_on_chunks_neighbours_or_threads(kit, tmp_path, instructions, dtype, quantization):
    folder = kit.write_model(tmp_path, "llama")
    feed = kit.Feed(LENGTHS)
    alone = {}
    runner = runner_of(folder, dtype, quantization)
    for index in range(len(LENGTHS)):
        alone |= kit.logits_of(runner, [feed.whole(index)])
    for seed in range(3):
        rng = random.Random(seed)
        runner = runner_of(folder, dtype, quantization, threads=1 + seed)
        found = {}
        for step in compositions(kit, feed, rng):
            found |= kit.logits_of(runner, step)
        assert {name: row.tobytes() for name, row in found.items()} == {n: row.tobytes() for n, row in alone.items()}


def test_threads_and_sessions_at_once_change_no_bit(kit, tmp_path):
    folder = kit.write_model(tmp_path, "qwen3")
    feed = kit.Feed(LENGTHS)
    expected = whole(kit, runner_of(folder), feed)
    found = {}

    def compute(threads):
        runner = runner_of(folder, threads=threads)
        for _ in range(10):
            found[threads] = whole(kit, runner, feed)

    workers = [threading.Thread(target=compute, args=(threads,)) for threads in (1, 2, 3, 4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for threads in (1, 2, 3, 4):
        assert all(np.array_equal(found[threads][name], row) for name, row in expected.items())


def test_the_lowest_of_equal_tokens_is_the_answer(kit, tmp_path):
    def same_rows(tensors):
        tensors["lm_head.weight"][7] = tensors["lm_head.weight"][200] * 40
        tensors["lm_head.weight"][200] *= 40

    runner = runner_of(kit.write_model(tmp_path, "mistral", spoil=same_rows))
    feed = kit.Feed([5])
    for length in range(1, 6):
        sequence = feed.sequences[0]
        sequence.tokens = sequence.tokens[:length]
        (sampled,) = runner.execute(StepPlan((feed.whole(0),), ()))
        row = runner._session.logits[0]
        assert sampled.token_id == int(row.argmax())
        if row.max() == row[7]:
            assert sampled.token_id == 7
            return
    pytest.fail("no prefix has token 7 as its best; another seed is needed")


def test_what_is_not_finite_is_told_and_stays_with_its_sequence(kit, tmp_path):
    def overflow(tensors):
        tensors["model.embed_tokens.weight"][3] = torch.inf

    folder = kit.write_model(tmp_path, "mistral", spoil=overflow)
    runner, feed = runner_of(folder), kit.Feed([40, 20])
    feed.sequences[0].tokens = [t if t != 3 else 4 for t in feed.sequences[0].tokens]
    feed.sequences[1].tokens = [t if t != 3 else 4 for t in feed.sequences[1].tokens]
    expected = kit.logits_of(runner, [feed.whole(1)])["1"]
    broken = feed.sequences[0]
    broken.tokens[10] = 3
    first, second = runner.execute(StepPlan((feed.whole(0), feed.whole(1)), ()))
    assert first.token_id is None
    assert second.token_id == int(expected.argmax())
    feed.sequences[1].blocks = broken.blocks[:2]  # where its numbers that are none still lie
    assert np.array_equal(kit.logits_of(runner, [feed.whole(1)])["1"], expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", ["llama", "multi-query"])
def test_what_a_block_held_before_touches_nothing_that_is_written_after(
    kit, tmp_path, instructions, architecture, dtype
):
    """Whole blocks are multiplied, by weight 0 where nothing is written yet; 0 times what is no number is none."""

    def no_numbers(tensors):
        tensors["model.embed_tokens.weight"][3] = torch.nan

    folder = kit.write_model(tmp_path, architecture, spoil=no_numbers)
    feed, before = kit.Feed(LENGTHS), kit.Feed([16 * len(each.blocks) for each in kit.Feed(LENGTHS).sequences])
    for sequence in feed.sequences:
        sequence.tokens = [4 if token == 3 else token for token in sequence.tokens]
    for sequence in before.sequences:
        sequence.tokens = [3] * len(sequence.tokens)
    expected, runner = whole(kit, runner_of(folder, dtype), feed), runner_of(folder, dtype)
    assert all(np.isnan(row).all() for row in whole(kit, runner, before).values())
    found = {}
    for step in compositions(kit, feed, random.Random(7)):
        found |= kit.logits_of(runner, step)
    assert {name: row.tobytes() for name, row in found.items()} == {n: row.tobytes() for n, row in expected.items()}


def test_a_step_that_cannot_be_is_refused(kit, tmp_path):
    runner, feed = runner_of(kit.write_model(tmp_path, "llama")), kit.Feed([20])
    sequence = feed.sequences[0]
    sequence.blocks = [0, LIMITS["total_blocks"]]
    with pytest.raises(KernelsError, match="a block is not in the cache"):
        runner.execute(StepPlan((feed.whole(0),), ()))
    sequence.blocks, sequence.tokens[4] = [0, 1], kit.vocabulary
    with pytest.raises(KernelsError, match="a token is not in the vocabulary"):
        runner.execute(StepPlan((feed.whole(0),), ()))


def test_counters_tell_steps_and_rows(kit, tmp_path):
    runner, feed = runner_of(kit.write_model(tmp_path, "llama")), kit.Feed([20, 30])
    whole(kit, runner, feed)
    whole(kit, runner, feed)
    counters = runner.counters
    assert (counters.steps, counters.rows) == (2, 100)
    assert min(counters.products_ns, counters.attention_ns, counters.rest_ns) > 0
    assert 0 < counters.share_outside_products < 1
