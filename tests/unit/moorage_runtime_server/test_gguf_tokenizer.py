"""Tokenizers of GGUF files that do not say what they should."""

import pytest

from moorage_runtime.server.tokenizer import TokenizerError, adds_bos, gguf_tokenizer

GOOD = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": ["a", "b", "ab", "<end>"],
    "tokenizer.ggml.merges": ["a b"],
    "tokenizer.ggml.token_type": [1, 1, 1, 3],
}


def test_the_one_that_the_others_differ_from():
    assert gguf_tokenizer(GOOD).encode("abb<end>").ids == [2, 1, 3]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tokens": None}, "no list of texts tokenizer.ggml.tokens"),
        ({"tokens": [1, 2]}, "no list of texts tokenizer.ggml.tokens"),
        ({"merges": None}, "no list of texts tokenizer.ggml.merges"),
        ({"merges": ["x y"]}, "cannot be used"),
        ({"pre": ["smollm"]}, "is not one of gpt-2, llama-bpe, qwen2, smollm"),
    ],
)
def test_what_cannot_be_used_is_said(wrong, message):
    metadata = GOOD | {f"tokenizer.ggml.{key}": value for key, value in wrong.items()}
    assert not adds_bos(metadata)
    with pytest.raises(TokenizerError, match=message):
        gguf_tokenizer(metadata)
