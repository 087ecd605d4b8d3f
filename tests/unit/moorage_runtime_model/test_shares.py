"""How a model is divided between ranks: everything is somebody's, nothing two ranks', and blocks stay whole."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, reject
from hypothesis import strategies as st

from moorage_runtime.model.checkpoint import open_checkpoint
from moorage_runtime.model.config import ModelConfig, Rope
from moorage_runtime.model.errors import UnsupportedModelError
from moorage_runtime.model.sharded import part_of
from moorage_runtime.model.shares import Blocks, Span, blocks_of, shares_of
from moorage_runtime.model.weights import floats_of
from tests.gguf_models import random_blocks as packer
from tests.gguf_models import write_gguf

SMOLLM2 = ModelConfig("llama", 49152, 576, 1536, 30, 9, 3, 64, 1e-5, Rope(1e5), 8192, True, (2,))  # noqa: FBT003 - tied


def spans(shares, name):
    return [(getattr(share, name).first, getattr(share, name).end) for share in shares]


def test_three_kv_heads_on_two_ranks_are_two_and_one():
    shares = shares_of(SMOLLM2, 2, Blocks(32, 32))
    assert spans(shares, "kv_heads") == [(0, 2), (2, 3)]
    assert spans(shares, "heads") == [(0, 6), (6, 9)]
    assert spans(shares, "mlp") == [(0, 768), (768, 1536)]
    assert spans(shares, "vocabulary") == [(0, 24576), (24576, 49152)]
    first, second = (share.config(SMOLLM2) for share in shares)
    assert (first.heads, first.kv_heads, second.heads, second.kv_heads) == (6, 2, 3, 1)


def test_more_ranks_than_kv_heads_hold_copies_and_divide_the_queries():
    shares = shares_of(SMOLLM2, 5, Blocks())
    assert spans(shares, "kv_heads") == [(0, 1), (0, 1), (1, 2), (1, 2), (2, 3)]
    assert spans(shares, "heads") == [(0, 2), (2, 3), (3, 5), (5, 6), (6, 9)]


def test_blocks_of_256_weights_stay_together():
    """Three query heads of 64 are 192 columns: none of the first boundaries is one of blocks of 256."""
    wide = replace(SMOLLM2, heads=12, kv_heads=4)
    with pytest.raises(UnsupportedModelError, match="4 KV heads, of which 4 stay together, cannot be divided"):
        shares_of(wide, 2, Blocks(attention=256, mlp=256))
    assert spans(shares_of(replace(wide, heads=16), 2, Blocks(256, 256)), "heads") == [(0, 8), (8, 16)]
    assert spans(shares_of(replace(wide, heads=16), 2, Blocks(256, 256)), "mlp") == [(0, 768), (768, 1536)]
    assert spans(shares_of(replace(wide, heads=16), 4, Blocks(256, 256)), "mlp")[0] == (0, 512)


def test_more_ranks_than_parts_are_refused():
    with pytest.raises(UnsupportedModelError, match="3 query heads of a KV head cannot be divided between 4 ranks"):
        shares_of(SMOLLM2, 12, Blocks())
    with pytest.raises(UnsupportedModelError, match="tokens, of which 64 stay together, cannot be divided between 2"):
        shares_of(replace(SMOLLM2, vocab_size=60), 2, Blocks())


@st.composite
def configs(draw):
    kv_heads = draw(st.integers(1, 8))
    return replace(
        SMOLLM2,
        heads=kv_heads * draw(st.integers(1, 8)),
        kv_heads=kv_heads,
        head_dim=draw(st.sampled_from([16, 32, 48, 64, 80, 128])),
        intermediate_size=draw(st.integers(1, 3000)),
        vocab_size=draw(st.integers(1, 3000)),
    )


@given(config=configs(), ranks=st.integers(1, 9), block=st.sampled_from([1, 32, 256]))
def test_every_part_is_one_ranks(config, ranks, block):
    group = config.heads // config.kv_heads
    try:
        shares = shares_of(config, ranks, Blocks(block, block))
    except UnsupportedModelError:
        reject()
    assert len(shares) == ranks
    totals = {"heads": config.heads, "mlp": config.intermediate_size, "vocabulary": config.vocab_size}
    for name, total in totals.items():
        found = spans(shares, name)
        assert found[0][0] == 0
        assert found[-1][1] == total
        assert all(before[1] == after[0] for before, after in pairwise(found))
        assert all(first < end for first, end in found)
    for share in shares:
        part = share.config(config)
        assert part.heads * share.kv_heads.size == part.kv_heads * share.heads.size
        # Its queries are those of its KV heads.
        assert {head // group for head in range(share.heads.first, share.heads.end)} == set(
            range(share.kv_heads.first, share.kv_heads.end)
        )
        for span in (share.heads.times(config.head_dim), share.mlp):
            assert span.first % block == 0
        assert shares[0].vocabulary.size >= share.vocabulary.size


def joined(parts, axis):
    return np.concatenate([floats_of(part) for part in parts], axis)


@pytest.mark.parametrize("quantization", [None, "Int8", "Int4"])
def test_the_parts_of_a_checkpoint_are_the_whole(write_model, quantization):
    whole = open_checkpoint(write_model(wide=True), quantization)
    shares = shares_of(whole.config, 2, blocks_of(whole))
    parts = [part_of(whole, share) for share in shares]
    by_rows = ("embed_tokens", "q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
    names = [
        "model.embed_tokens.weight",
        *(f"model.layers.1.self_attn.{name}_proj.weight" for name in "qkvo"),
        *(f"model.layers.0.mlp.{name}_proj.weight" for name in ("gate", "up", "down")),
    ]
    for name in names:
        stored = [part.stored(name) for part in parts]
        axis = 0 if name.split(".")[-2] in by_rows else 1
        assert np.array_equal(joined(stored, axis), floats_of(whole.stored(name)))
        assert {each.format for each in stored} == {whole.stored(name).format}
        for part, each in zip(parts, stored, strict=True):
            layout = part.layout(name)
            assert (layout.format, layout.rows, layout.columns) == (each.format, each.rows, each.columns)
            assert torch.equal(part.tensor(name), torch.from_numpy(floats_of(each)).to(part.tensor(name).dtype))
    for part in parts:
        assert np.array_equal(floats_of(part.stored("model.norm.weight")), floats_of(whole.stored("model.norm.weight")))


@pytest.mark.parametrize("name", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q4_0", "Q5_1"])
def test_quantised_blocks_are_cut_between_and_never_through(write_model, tmp_path, name):
    """Two blocks of 256 in each row that is cut, so that each rank has one."""
    path = write_gguf(
        tmp_path / "model.gguf", open_checkpoint(write_model(wide=True, wide_heads=128)), pack=packer(name)
    )
    whole = open_checkpoint(path)
    shares = shares_of(whole.config, 2, blocks_of(whole))
    assert spans(shares, "heads") == [(0, 2), (2, 4)]
    parts = [part_of(whole, share) for share in shares]
    for matrix, axis in (("self_attn.o_proj", 1), ("mlp.down_proj", 1), ("self_attn.k_proj", 0), ("mlp.up_proj", 0)):
        tensor = f"model.layers.1.{matrix}.weight"
        stored = [part.stored(tensor) for part in parts]
        assert {each.format for each in stored} == {name}
        assert np.array_equal(joined(stored, axis), floats_of(whole.stored(tensor)))


def test_a_span_counts_in_smaller_units():
    assert Span(1, 3).times(16) == Span(16, 48)
    assert Span(16, 48).size == 32
