"""From a prompt's text to its tokens, without looking at more of it than the model's context can hold.

A tokenizer takes some 250 bytes and 4 us for every token: all of a body of 16 MiB, 2.8 GB and 25 s (measured with
SmolLM2's). So text far beyond the context is known by its beginning.
"""

import asyncio

from tokenizers import Tokenizer

from moorage_runtime.server.errors import ContextTooLongError

_CHARACTERS = 8
"""Of text for each token of the context that are encoded at first: nearly every prompt that fits, whole."""
_CUT = 64
"""Tokens, generously, that a cut through a word makes more than there would be."""
_LONG_TEXT = 8192
"""Characters from which tokenizing takes longer than handing it to a thread (some 2 ms)."""


async def encode(tokenizer: Tokenizer, text: str, *, special: bool, context: int, param: str) -> list[int]:
    """The tokens of `text`.

    Args:
        tokenizer: The model's.
        text: The prompt.
        special: Whether the tokenizer adds the tokens that begin a text.
        context: Tokens that the model can take.
        param: What the client calls the prompt.

    Raises:
        ContextTooLongError: they are more than that by far.
    """
    if len(text) < _LONG_TEXT:
        return _ids(tokenizer, text, special=special)
    length = context * _CHARACTERS
    while length < len(text):
        found = len(await _in_thread(tokenizer, text[:length], special=special))
        if found > context + _CUT:
            raise ContextTooLongError(context=context, prompt=found, asked=None, param=param, cut=True)
        length *= 2
    return await _in_thread(tokenizer, text, special=special)


async def _in_thread(tokenizer: Tokenizer, text: str, *, special: bool) -> list[int]:
    # The library lets go of the interpreter lock meanwhile.
    return await asyncio.to_thread(_ids, tokenizer, text, special=special)


def _ids(tokenizer: Tokenizer, text: str, *, special: bool) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=special).ids
