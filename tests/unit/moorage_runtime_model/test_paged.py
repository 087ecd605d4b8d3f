"""Attention to blocks where they lie: the tiles that a kernel is given, and the Triton kernel itself on CPU tensors."""

import importlib
import random

import pytest
import torch

from moorage_runtime.engine.blocks import BLOCK_TOKENS, blocks_for
from moorage_runtime.engine.messages import SamplingParams
from moorage_runtime.engine.plan import Chunk
from moorage_runtime.engine.sequence import Sequence
from moorage_runtime.model.checkpoint import open_checkpoint
from moorage_runtime.model.config import ModelConfig, Rope
from moorage_runtime.model.torch_path import gathered, paged
from moorage_runtime.model.torch_path.cache import CPU, KVCache
from moorage_runtime.model.torch_path.llama import Llama

BLOCKS = 160
MIXTURES = {
    "decodes": [(0, 1), (16, 1), (300, 1)],
    "prompt": [(0, 37)],
    "chunk of a prompt": [(50, 80)],
    "mixed": [(15, 1), (0, 5), (130, 1), (90, 33)],
}


def chunks_of(spans):
    """Chunks (start, count) of sequences whose blocks lie scattered over the cache."""
    free = random.Random(3).sample(range(BLOCKS), BLOCKS)
    return tuple(
        Chunk(
            Sequence(
                id=str(index),
                tokens=[0] * (start + count),
                prompt_length=start + count,
                max_length=2000,
                sampling=SamplingParams(),
                stop_token_ids=frozenset(),
                order=(0, index),
                blocks=[free.pop() for _ in range(blocks_for(start + count))],
            ),
            start,
            count,
            samples=True,
        )
        for index, (start, count) in enumerate(spans)
    )


def model_config(heads, kv_heads, head_dim):
    return ModelConfig(
        architecture="llama",
        vocab_size=8,
        hidden_size=8,
        intermediate_size=8,
        layers=2,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        rms_eps=1e-5,
        rope=Rope(1e4),
        context_length=2000,
        tied_embeddings=True,
        eos_token_ids=(),
    )


class Case:
    """A cache full of numbers, and random queries for the rows of some chunks."""

    def __init__(self, spans, heads=6, kv_heads=2, head_dim=16, dtype=torch.float32):
        generator = torch.Generator().manual_seed(5)
        self.chunks = chunks_of(spans)
        self.group, self.dtype = heads // kv_heads, dtype
        self.cache = KVCache(model_config(heads, kv_heads, head_dim), BLOCKS, dtype)
        self.cache.blocks(1).copy_(torch.randn(BLOCKS, BLOCK_TOKENS, 2, kv_heads, head_dim, generator=generator))
        rows = sum(count for _, count in spans)
        # As in the forward pass: a part of a wider tensor.
        self.queries = torch.randn(rows, heads + 1, head_dim, generator=generator).to(dtype)[:, :heads]

    def paged(self, kernel):
        return paged.lay_out(self.chunks, self.group, kernel, CPU).attention(self.queries, 1, self.cache)


@pytest.mark.parametrize("attention", ["gathered", "paged"])
def test_a_mixed_step_stays_on_its_device(small_model, one_device, attention):
    meta, chunks = torch.device("meta"), chunks_of(MIXTURES["mixed"])
    model = Llama(open_checkpoint(small_model), torch.float16, lambda _done: None, meta)
    cache = KVCache(model.config, BLOCKS, torch.float16, device=meta)
    batch = (
        gathered.lay_out(chunks, 2, torch.float16, meta)
        if attention == "gathered"
        else paged.lay_out(chunks, 2, lambda *_given, **_named: None, meta)
    )
    logits = model.forward(batch, cache)
    assert (logits.device.type, logits.shape) == ("meta", (len(chunks), model.config.vocab_size))


@pytest.fixture(scope="module")
def triton_attend():
    """The kernel, run by Triton's interpreter, so that it needs no GPU."""
    pytest.importorskip("triton", reason="triton is not installed: `pip install triton`, and this needs no GPU")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TRITON_INTERPRET", "1")  # as tests/conftest.py did for Triton itself
        yield importlib.import_module("moorage_runtime.model.torch_path.paged_kernel").attend


@pytest.mark.parametrize("spans", MIXTURES.values(), ids=MIXTURES)
def test_gathered_attention_is_the_definition(paged_reference, spans):
    case = Case(spans)
    batch = gathered.lay_out(case.chunks, case.group, case.dtype, CPU)
    plain = paged.lay_out(case.chunks, case.group, paged_reference, CPU)
    # The two lay rows out in different orders: bring the queries, and the answers, into that of the other.
    order = [(plain.slots == slot).nonzero().item() for slot in batch.slots]
    torch.testing.assert_close(
        batch.attention(case.queries[order], 1, case.cache), plain.attention(case.queries, 1, case.cache)[order]
    )
    assert plain.positions[order].tolist() == batch.positions.tolist()


@pytest.mark.parametrize("spans", MIXTURES.values(), ids=MIXTURES)
def test_every_row_is_in_one_tile(paged_reference, spans):
    case = Case(spans)
    attention = paged.lay_out(case.chunks, case.group, paged_reference, CPU).attention
    tiles = [*attention.decodes.tolist(), *attention.prompts.tolist()]
    covered = [row + at for _, row, _, rows in tiles for at in range(rows)]
    assert sorted(covered) == list(range(len(case.queries)))
    assert len(attention.decodes) == sum(count == 1 for _, count in spans)


@pytest.mark.parametrize("spans", MIXTURES.values(), ids=MIXTURES)
def test_triton_kernel_is_the_definition(paged_reference, triton_attend, spans):
    case = Case(spans)
    torch.testing.assert_close(case.paged(triton_attend), case.paged(paged_reference))


@pytest.mark.parametrize("shape", [(2, 2, 64), (9, 3, 24)], ids=["a KV head each", "no power of two"])
def test_triton_kernel_takes_other_heads(paged_reference, triton_attend, shape):
    case = Case([(40, 1), (20, 30)], *shape)
    torch.testing.assert_close(case.paged(triton_attend), case.paged(paged_reference))


def test_triton_kernel_in_float16(paged_reference, triton_attend):
    # The interpreter computes no bfloat16: that is for `make gpu-check`.
    case = Case([(40, 1), (20, 30)], dtype=torch.float16)
    torch.testing.assert_close(case.paged(triton_attend), case.paged(paged_reference), atol=4e-3, rtol=4e-3)


def test_a_past_longer_than_all_parts_is_seen_whole(paged_reference, triton_attend):
    # 16 parts of at least 128 positions are 2,048: here each part has to be larger.
    case = Case([(2300, 1)])
    torch.testing.assert_close(case.paged(triton_attend), case.paged(paged_reference))


def test_neighbours_do_not_change_a_decoding_row(triton_attend):
    case = Case(MIXTURES["decodes"])
    together = case.paged(triton_attend)
    for row, chunk in enumerate(case.chunks):
        batch = paged.lay_out((chunk,), case.group, triton_attend, CPU)
        assert torch.equal(batch.attention(case.queries[row : row + 1], 1, case.cache), together[row : row + 1])


def test_padding_is_not_computed(triton_attend):
    case = Case(MIXTURES["decodes"])
    batch = paged.lay_out(case.chunks, case.group, triton_attend, CPU)
    tiles = torch.cat((batch.attention.decodes[:2], torch.zeros(1, 4, dtype=torch.int32)))
    out = torch.full(case.queries.shape, torch.nan)
    triton_attend(case.queries, case.cache.blocks(1), batch.attention.tables, tiles, tokens=1, out=out)
    assert out[2:].isnan().all()
    assert torch.equal(out[:2].flatten(1), case.paged(triton_attend)[:2])
