"""What `moor plan` reckons with is what the runtime will take."""

import json

import pytest

from moorage_cli.estimate import read_shape
from moorage_runtime.model.config import from_hugging_face

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
