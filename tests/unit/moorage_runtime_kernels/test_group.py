"""Ranks that compute one model: its numbers, the same bits whatever is computed together, and what is lost is told."""

import random
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest

from moorage_runtime.engine.messages import SamplingParams
from moorage_runtime.engine.plan import Limits, StepPlan
from moorage_runtime.kernels.library import KernelsError
from moorage_runtime.model import native, native_group
from moorage_runtime.model.checkpoint import open_checkpoint
from moorage_runtime.model.division import Division
from moorage_runtime.model.settings import Settings
from tests.ranks import Ranks, close, links_of

LENGTHS = (1, 2, 15, 17, 33, 64, 130)
LIMITS = {"context_length": 512, "vocab_size": 211, "total_blocks": 64, "max_running": 32, "token_budget": 512}
DRAWN = SamplingParams(temperature=1.0, seed=1)


@pytest.fixture
def group():
    """Makes groups, each with a runner."""

    def make(*arguments, **options):
        return Ranks(*arguments, **options).runner(Limits(**LIMITS))

    return make


def alone_on(folder, dtype=None, quantization=None):
    model = native.load(open_checkpoint(folder, quantization), dtype, 1, lambda _done: None)
    return model.runner(Limits(**LIMITS))


def drawn_feed(kit, lengths=LENGTHS):
    """Sequences whose logits are wanted: what is greedy leaves them where they are computed."""
    feed = kit.Feed(lengths)
    for sequence in feed.sequences:
        sequence.sampling = DRAWN
    return feed


def whole(kit, runner, feed):
    return kit.logits_of(runner, [feed.whole(index) for index in range(len(feed.sequences))])


@pytest.mark.parametrize(("ranks", "over"), list(product([2, 3], ["memory", "sockets"])))
@pytest.mark.parametrize("name", ["llama", "llama-biased", "mistral", "qwen2", "qwen3", "multi-head", "multi-query"])
def test_logits_are_those_of_one_rank(kit, group, tmp_path, name, ranks, over):  # noqa: PLR0917 - fixtures
    folder = kit.write_model(tmp_path, name)
    feed = drawn_feed(kit)
    expected = whole(kit, alone_on(folder, "float32"), feed)
    found = whole(kit, group(folder, ranks, dtype="float32", over=over), feed)
    for key, row in expected.items():
        assert np.abs(found[key] - row).max() < 1e-4 * np.abs(row).max()


@pytest.mark.parametrize("hidden", [72, 90])
@pytest.mark.parametrize("over", ["memory", "sockets"])
def test_rows_that_are_no_whole_vectors_are_added_to_their_ends(kit, group, tmp_path, hidden, over):
    folder = kit.write_model(tmp_path, "llama", hidden=hidden)
    feed = drawn_feed(kit)
    expected = whole(kit, alone_on(folder, "float32"), feed)
    found = whole(kit, group(folder, 3, dtype="float32", over=over), feed)
    for key, row in expected.items():
        assert np.abs(found[key] - row).max() < 1e-4 * np.abs(row).max()


@pytest.mark.parametrize(("dtype", "quantization"), [("bfloat16", None), (None, "Int8"), (None, "Int4")])
def test_other_types_are_near(kit, group, tmp_path, dtype, quantization):
    folder = kit.write_model(tmp_path, "mistral")
    feed = drawn_feed(kit)
    expected = whole(kit, alone_on(folder, dtype, quantization), feed)
    found = whole(kit, group(folder, 2, dtype=dtype, quantization=quantization), feed)
    for key, row in expected.items():
        assert np.linalg.norm(found[key] - row) < 0.05 * np.linalg.norm(row)


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


@pytest.mark.parametrize(("name", "ranks"), [("mistral", 2), ("multi-head", 3)])
@pytest.mark.parametrize(
    "asked", [{"dtype": "float32"}, {"dtype": "bfloat16"}, {"quantization": "Int8"}, {"quantization": "Int4"}]
)
def test_bits_depend_on_the_number_of_ranks_alone(kit, group, tmp_path, name, ranks, asked):  # noqa: PLR0917 - as above
    """Not on chunks, neighbours, threads, or on what the exchanges go through."""
    folder = kit.write_model(tmp_path, name)
    feed = drawn_feed(kit)
    runner, alone = group(folder, ranks, **asked), {}
    for index in range(len(LENGTHS)):
        alone |= kit.logits_of(runner, [feed.whole(index)])
    for seed, over in enumerate(["memory", "sockets"]):
        rng = random.Random(seed)
        runner = group(folder, ranks, threads=1 + seed, over=over, **asked)
        found = {}
        for step in compositions(kit, feed, rng):
            found |= kit.logits_of(runner, step)
        assert {name: row.tobytes() for name, row in found.items()} == {n: row.tobytes() for n, row in alone.items()}


def test_every_rank_has_the_same_numbers_between_layers(kit, group, tmp_path):
    """What the ranks' parts of the head make of the same row is what one rank makes of it, bit by bit."""
    runner = group(kit.write_model(tmp_path, "mistral"), 3, dtype="float32")
    feed = drawn_feed(kit)
    chunks = tuple(feed.whole(index) for index in range(len(LENGTHS)))
    runner.execute(StepPlan(chunks, ()))
    rows = runner._session.logits[: len(chunks)]
    for rank, share in enumerate(runner.ranks.division.shares):
        part = runner.runners[rank]._session.logits[: len(chunks), : share.vocabulary.size]
        assert np.array_equal(rows[:, share.vocabulary.first : share.vocabulary.end], part)


def test_only_rows_that_are_drawn_from_are_gathered(kit, group, tmp_path):
    runner = group(kit.write_model(tmp_path, "llama"), 2, dtype="float32")
    feed = kit.Feed([9, 20, 30])
    feed.sequences[1].sampling = DRAWN
    runner.execute(StepPlan(tuple(feed.whole(index) for index in range(3)), ()))
    end = runner.ranks.division.shares[0].vocabulary.end
    beyond = runner._session.logits[:3, end:]
    assert [bool(row.any()) for row in beyond] == [False, True, False]


def test_greedy_tokens_are_the_best_of_all_parts_and_the_lowest_of_equal_ones(kit, group, tmp_path):
    def same_rows(tensors):
        tensors["lm_head.weight"][7] = tensors["lm_head.weight"][200] * 40
        tensors["lm_head.weight"][200] *= 40

    folder = kit.write_model(tmp_path, "mistral", spoil=same_rows)
    one, several = alone_on(folder, "float32"), group(folder, 3, dtype="float32")
    assert several.ranks.division.shares[0].vocabulary.end <= 200
    seen = set()
    for seed in range(30):
        feed = kit.Feed([3 + seed], seed)
        (expected,), (found,) = (each.execute(StepPlan((feed.whole(0),), ())) for each in (one, several))
        row = one._session.logits[0]
        first, second = np.sort(np.unique(row))[-2:][::-1]
        if first - second > 1e-3 * abs(first):
            assert found.token_id == expected.token_id
            seen.add(found.token_id)
    assert 7 in seen
    assert 200 not in seen
    assert max(seen) > several.ranks.division.shares[0].vocabulary.end, "no answer came from another rank's part"


@pytest.mark.parametrize("token", [3, 150], ids=["first rank's", "another's"])
def test_what_is_not_finite_is_told_and_stays_with_its_sequence(kit, group, tmp_path, token):
    def overflow(tensors):
        tensors["model.embed_tokens.weight"][token] = np.inf

    runner = group(kit.write_model(tmp_path, "mistral", spoil=overflow), 2)
    feed = kit.Feed([40, 20])
    for sequence in feed.sequences:
        sequence.tokens = [each if each != token else token + 1 for each in sequence.tokens]
    (alone,) = runner.execute(StepPlan((feed.whole(1),), ()))
    feed.sequences[0].tokens[10] = token
    first, second = runner.execute(StepPlan((feed.whole(0), feed.whole(1)), ()))
    assert first.token_id is None
    assert second.token_id == alone.token_id
    assert runner.execute(StepPlan((feed.whole(1),), ())) == [alone]


@pytest.mark.parametrize("over", ["memory", "sockets"])
def test_a_rank_that_does_not_come_is_named(kit, group, tmp_path, monkeypatch, over):
    monkeypatch.setattr(native_group, "EXCHANGE_SECONDS", 1)
    ranks = group(kit.write_model(tmp_path, "llama"), 2, over=over)
    feed = kit.Feed([5])
    with pytest.raises(KernelsError, match="rank 1 did not come to an exchange in time"):
        ranks.runners[0].execute(StepPlan((feed.whole(0),), ()))


@pytest.mark.parametrize("over", ["memory", "sockets"])
def test_a_rank_whose_control_stream_ends_is_gone_at_once(kit, tmp_path, over):
    ours, theirs = socket.socketpair()
    division = Division.open(Settings(kit.write_model(tmp_path, "llama"), 4), 3)
    links = links_of(3, over, [(-1, -1, ours.fileno()), (-1, -1, -1), (-1, -1, -1)])
    runner = division.load(links[0], 1, lambda _done: None).runner(Limits(**LIMITS))
    closing = threading.Thread(target=theirs.close)
    closing.start()
    with pytest.raises(KernelsError, match="rank 2 is gone"):
        runner.execute(StepPlan((kit.Feed([5]).whole(0),), ()))
    closing.join()
    ours.close()
    close(None, links)


def test_a_rank_that_computes_another_step_is_noticed(kit, group, tmp_path):
    ranks = group(kit.write_model(tmp_path, "llama"), 2, over="sockets")
    one, other = (native.arrays_of(StepPlan((kit.Feed([length]).whole(0),), ())) for length in (5, 9))
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(ranks.runners[1].follow, other)
        with pytest.raises(KernelsError, match="rank 1 computes another step"):
            ranks.runners[0].follow(one)
        for stream in ranks.ranks.links[0].streams[1:]:
            stream.close()
        with pytest.raises(KernelsError, match="rank 0"):
            late.result()


def test_a_session_larger_than_its_groups_slots_is_refused(kit, tmp_path, monkeypatch):
    monkeypatch.setattr(native_group, "MOST_ROWS", 16)
    division = Division.open(Settings(kit.write_model(tmp_path, "llama"), 4), 2)
    links = links_of(2, "memory")
    model = division.load(links[0], 1, lambda _done: None)
    with pytest.raises(KernelsError, match="slots are smaller than a step"):
        model.runner(Limits(**{**LIMITS, "token_budget": 4096}))
    close(None, links)


@pytest.mark.parametrize("ranks", [2, 3])
def test_each_rank_holds_its_part_of_the_weights_alone(kit, group, tmp_path, ranks):
    folder = kit.write_model(tmp_path, "mistral")
    whole = native.load(open_checkpoint(folder), None, 1, lambda _done: None).weight_bytes
    parts = [model.weight_bytes for model in group(folder, ranks).ranks.models]
    assert all(part < 0.7 * whole for part in parts)
    assert whole <= sum(parts) < 1.1 * whole
