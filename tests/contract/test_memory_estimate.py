"""What `moor plan` reckons with is what the runtime will take."""

import json

import pytest

from moorage_cli.estimate import parts, read_shape
from moorage_runtime.model.config import from_hugging_face
from moorage_runtime.model.errors import UnsupportedModelError
from moorage_runtime.model.shares import Blocks, shares_of

SMALL = {
    "model_type": "llama",
    "vocab_size": 1000,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "eos_token_id": 2,
}


@pytest.mark.parametrize("change", [{}, {"head_dim": 16}, {"num_key_value_heads": None}, {"tie_word_embeddings": True}])
def test_both_read_the_same_shape(change, tmp_path):
    config = {**SMALL, **change}
    (tmp_path / "config.json").write_text(json.dumps(config))
    ours = read_shape(str(tmp_path / "config.json"))
    theirs = from_hugging_face(config, {})
    matrices = theirs.layers * (
        theirs.hidden_size * (theirs.qkv_size + theirs.heads * theirs.head_dim)
        + 3 * theirs.hidden_size * theirs.intermediate_size
    )
    assert ours.layers == matrices
    assert ours.vocabulary == theirs.vocab_size * theirs.hidden_size * (1 if theirs.tied_embeddings else 2)
    assert ours.kv_bytes == theirs.layers * theirs.kv_size * 2
    assert ours.max_position_embeddings == theirs.context_length


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5, 8, 12, 24, 25])
@pytest.mark.parametrize("heads", [(24, 8), (24, 3), (9, 3), (8, 8)])
def test_both_divide_it_in_the_same_way(heads, ranks, tmp_path):
    """But for columns and tokens, of which the runtime keeps whole vectors together."""
    query_heads, kv_heads = heads
    counts = {"num_attention_heads": query_heads, "num_key_value_heads": kv_heads, "head_dim": 8}
    config = {**SMALL, **counts, "vocab_size": 4800, "intermediate_size": 2400}
    (tmp_path / "config.json").write_text(json.dumps(config))
    ours = parts(read_shape(str(tmp_path / "config.json")), ranks)
    try:
        theirs = [
            share.config(from_hugging_face(config, {}))
            for share in shares_of(from_hugging_face(config, {}), ranks, Blocks())
        ]
    except UnsupportedModelError:
        assert not all(part.num_attention_heads for part in ours)
        return
    assert [part.num_attention_heads for part in ours] == [part.heads for part in theirs]
    assert [part.num_key_value_heads for part in ours] == [part.kv_heads for part in theirs]
    for part, real in zip(ours, theirs, strict=True):
        assert abs(part.intermediate_size - real.intermediate_size) <= 64
        assert abs(part.vocab_size - real.vocab_size) <= 128
