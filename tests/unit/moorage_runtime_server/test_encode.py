"""Text becomes tokens, but no more of it than the model could take."""

import pytest
from tokenizers import Tokenizer

from moorage_runtime.server.encode import encode
from moorage_runtime.server.errors import ContextTooLongError


class Counting:
    """A tokenizer that remembers how much text it was given."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.seen = []

    def encode(self, text, add_special_tokens):
        self.seen.append(len(text))
        return self.tokenizer.encode(text, add_special_tokens=add_special_tokens)


async def tokens(tokenizer, text, context=4096):
    return await encode(tokenizer, text, special=True, context=context, param="prompt")


@pytest.mark.parametrize("length", [0, 100, 9000, 32_000])
async def test_what_may_fit_is_encoded_once(tokenizer, length):
    counting = Counting(tokenizer)
    assert await tokens(counting, "a" * length) == tokenizer.encode("a" * length).ids
    assert counting.seen == [length]


async def test_what_can_never_fit_is_not_looked_at_to_its_end(tokenizer):
    counting = Counting(tokenizer)
    with pytest.raises(ContextTooLongError, match="your prompt has more than 32768 tokens") as error:
        await tokens(counting, "a" * 1_000_000)
    assert counting.seen == [32_768]
    assert (error.value.param, error.value.code) == ("prompt", "context_length_exceeded")


async def test_many_characters_may_be_few_tokens(tokenizer):
    wide = Tokenizer.from_str(tokenizer.to_str())
    wide.add_special_tokens(["<wide as twenty are>"])
    counting = Counting(wide)
    assert len(await tokens(counting, "<wide as twenty are>" * 4000)) == 4000
    assert counting.seen == [32_768, 65_536, 80_000]
    counting.seen.clear()
    with pytest.raises(ContextTooLongError):
        await tokens(counting, "<wide as twenty are>" * 40_000)
    assert counting.seen == [32_768, 65_536, 131_072]
