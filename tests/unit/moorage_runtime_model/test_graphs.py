"""Decoding by captured graphs, with a stand-in for the capture: the same tokens, and nothing written elsewhere."""

import pytest
import torch

from moorage_runtime.engine.core import Engine
from moorage_runtime.engine.messages import SamplingParams, Submit
from moorage_runtime.engine.plan import Limits
from moorage_runtime.model.checkpoint import open_checkpoint
from moorage_runtime.model.torch_path.cache import KVCache
from moorage_runtime.model.torch_path.graphs import SCRATCH_BLOCKS, DecodeGraphs, padded_sizes
from moorage_runtime.model.torch_path.llama import Llama
from moorage_runtime.model.torch_path.runner import ModelRunner

LIMITS = Limits(context_length=256, vocab_size=211, total_blocks=128, max_running=6, token_budget=128)


class FakeCapture:
    """Like a CUDA graph: replayed, it computes from the same tensors into the same tensor."""

    def __init__(self):
        self.rows = []
        self.replayed = []

    def __call__(self, compute):
        result = compute()
        self.rows.append(len(result))

        def replay():
            self.replayed.append(len(result))
            result.copy_(compute())

        return replay, result


@pytest.fixture(scope="module")
def model(small_model):
    return Llama(open_checkpoint(small_model), torch.float32, lambda _done: None)


@pytest.fixture
def capture():
    return FakeCapture()


@pytest.fixture
def cache(model):
    return KVCache(model.config, LIMITS.total_blocks + SCRATCH_BLOCKS, model.dtype)


@pytest.fixture
def engine(model, cache, capture, paged_reference):
    graphs = DecodeGraphs(model, cache, paged_reference, LIMITS, capture)
    return Engine(ModelRunner(model, cache, kernel=paged_reference, graphs=graphs), LIMITS)


def requests(count, max_tokens=12):
    return [
        Submit(f"{index}", [(5 * index + at) % 211 for at in range(3 + 9 * index)], max_tokens, SamplingParams(0.0))
        for index in range(count)
    ]


def run(engine, asked):
    for request in asked:
        engine.submit(request, 0.0)
    tokens = {request.id: [] for request in asked}
    while engine.has_work:
        for output in engine.step(0.0).outputs:
            assert not output.error
            tokens[output.id] += output.token_ids
    engine.check()
    return tokens


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_graphs_give_the_same_tokens_as_steps_without(engine, engine_of, capture, count):
    assert run(engine, requests(count)) == run(engine_of(), requests(count))
    assert set(capture.replayed) == {min(size for size in padded_sizes(6) if size >= count)}
    # The first token of each comes with its prompt, the other eleven from replays.
    assert len(capture.replayed) >= 11


def test_requests_that_end_leave_no_rows_behind(engine, engine_of):
    asked = [Submit(each.id, each.prompt, 4 + 5 * index, each.sampling) for index, each in enumerate(requests(5))]
    assert run(engine, asked) == run(engine_of(), asked)


def test_padding_writes_to_no_block_of_the_engine(engine, cache, model):
    run(engine, requests(5))
    used = {block for block in range(LIMITS.total_blocks + 1) if cache.blocks(0)[block].any()}
    assert LIMITS.total_blocks in used  # five rows are padded to six: the block behind the engine's
    # 5 prompts of 3, 12, … tokens and 11 computed after each: as many blocks, and not one more.
    assert len(used) - 1 == sum(-(-(3 + 9 * index + 11) // 16) for index in range(5))


def test_one_graph_for_each_padded_size_the_largest_first(engine, capture):
    assert capture.rows == [6, 4, 2, 1]
    assert padded_sizes(1) == [1]
    assert padded_sizes(64) == [1, 2, 4, 8, 16, 32, 64]
    assert padded_sizes(100) == [1, 2, 4, 8, 16, 32, 64, 100]


def test_steps_with_prompts_are_computed_without_graphs(engine, capture):
    engine.submit(requests(1)[0], 0.0)
    engine.step(0.0)
    assert capture.replayed == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_forward_pass_stays_on_its_device(small_model, one_device, dtype):
    """What a GPU would refuse: a tensor left on the processor, or a number asked for in the middle."""

    def kernel(queries, blocks, tables, tiles, *, tokens, out):
        assert {each.device.type for each in (queries, blocks, tables, tiles, out)} == {"meta"}

    device = torch.device("meta")
    model = Llama(open_checkpoint(small_model), dtype, lambda _done: None, device)
    cache = KVCache(model.config, LIMITS.total_blocks + SCRATCH_BLOCKS, dtype, device=device)
    logits = []

    def capture(compute):
        logits.append(compute())
        return lambda: None, logits[-1]

    DecodeGraphs(model, cache, kernel, LIMITS, capture)
    assert {(each.device.type, each.dtype) for each in logits} == {("meta", dtype)}
    assert [each.shape for each in logits] == [(size, 211) for size in reversed(padded_sizes(6))]
