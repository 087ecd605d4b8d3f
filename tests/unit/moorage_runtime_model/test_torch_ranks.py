"""A model that torch computes on several ranks: each a thread of this process, with sums and rows over a barrier."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from moorage_runtime.engine.messages import SamplingParams
from moorage_runtime.engine.plan import Chunk, StepPlan
from moorage_runtime.engine.sequence import Sequence
from moorage_runtime.model.checkpoint import open_checkpoint
from moorage_runtime.model.native import arrays_of
from moorage_runtime.model.sharded import part_of
from moorage_runtime.model.shares import Blocks, shares_of
from moorage_runtime.model.torch_path.cache import KVCache
from moorage_runtime.model.torch_path.llama import Llama
from moorage_runtime.model.torch_path.ranks import Ranks
from moorage_runtime.model.torch_path.runner import ModelRunner

DEADLINE_S = 60
BLOCKS = 32


class Meeting:
    """What all threads left, between two barriers."""

    def __init__(self, ranks):
        self.parts = [None] * ranks
        self.barrier = threading.Barrier(ranks, timeout=DEADLINE_S)

    def all(self, rank, part):
        self.parts[rank] = part.clone()
        self.barrier.wait()
        parts = list(self.parts)
        self.barrier.wait()
        return parts


class Exchanges:
    """See `moorage_runtime.model.torch_path.ranks.Exchanges`."""

    def __init__(self, meeting, rank):
        self.meeting, self.rank = meeting, rank

    def total(self, part):
        return sum(self.meeting.all(self.rank, part))

    def whole(self, part):
        parts = self.meeting.all(self.rank, part)
        return torch.cat(parts, dim=-1) if self.rank == 0 else part


def runner_of(checkpoint, ranks=None):
    model = Llama(checkpoint, torch.float32, lambda _done: None, ranks=ranks)
    return ModelRunner(model, KVCache(model.config, BLOCKS, model.dtype))


def sequence(name, tokens, first_block):
    return Sequence(
        id=str(name),
        tokens=tokens,
        prompt_length=len(tokens),
        max_length=len(tokens) + 1,
        sampling=SamplingParams(temperature=0.0),
        stop_token_ids=frozenset(),
        order=(0, name),
        blocks=list(range(first_block, first_block + 3)),
    )


def steps():
    """A prompt, another in two chunks, and a token of the first beside the second's end."""
    one, other = sequence(0, [*range(5, 45)], 0), sequence(1, [*range(100, 133)], 3)
    yield StepPlan((Chunk(one, 0, 39, samples=False), Chunk(other, 0, 20, samples=False)), ())
    yield StepPlan((Chunk(one, 39, 1, samples=True), Chunk(other, 20, 13, samples=True)), ())


@pytest.mark.parametrize("ranks", [2, 3])
def test_logits_are_those_of_one_rank(small_model, ranks):
    whole = open_checkpoint(small_model)
    shares = shares_of(whole.config, ranks, Blocks())
    meeting = Meeting(ranks)
    runners = [
        runner_of(part_of(whole, share), Ranks(Exchanges(meeting, share.rank), share.vocabulary.first))
        for share in shares
    ]
    alone = runner_of(whole)
    with ThreadPoolExecutor(ranks) as pool:
        for plan in steps():
            arrays = arrays_of(plan)
            others = [pool.submit(runner.follow, arrays) for runner in runners[1:]]
            found = runners[0].compute(plan, arrays)
            for other in others:
                other.result(DEADLINE_S)
            assert found == alone.execute(plan)
    assert len(found) == 2


def test_a_step_told_as_arrays_is_the_same_step():
    for plan in steps():
        for told, chunk in zip(arrays_of(plan).chunks(), plan.chunks, strict=True):
            assert (told.start, told.count, told.samples) == (chunk.start, chunk.count, chunk.samples)
            end = chunk.start + chunk.count
            assert told.tokens == chunk.tokens == chunk.sequence.tokens[chunk.start : end]
            assert not told.sequence.tokens, "the past is nothing that followers are told"
            used = -(-end // 16)
            assert told.sequence.blocks[:used] == chunk.sequence.blocks[:used]
