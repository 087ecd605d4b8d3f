"""Log-probabilities in the two forms that OpenAI's API has for them."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from tokenizers import Tokenizer, decoders

from moorage_runtime.engine.messages import TokenLogprobs


def _byte_alphabet() -> dict[str, int]:
    """The character that byte-level vocabularies write for each byte (GPT-2's table)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    table = {chr(byte): byte for byte in plain}
    return table | {chr(256 + offset): byte for offset, byte in enumerate(others)}


_BYTES = _byte_alphabet()


class TokenNames:
    """How single tokens are shown to people and programs."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._byte_level = isinstance(tokenizer.decoder, decoders.ByteLevel)

    def text(self, token: int) -> str:
        """The token as text; bytes that are no whole character become U+FFFD."""
        return self._tokenizer.decode([token], skip_special_tokens=False)

    def bytes(self, token: int) -> list[int]:
        """The token's own bytes."""
        name = self._tokenizer.id_to_token(token) or ""
        if self._byte_level and all(char in _BYTES for char in name):
            return [_BYTES[char] for char in name]
        return list(self.text(token).encode())


def chat_logprobs(names: TokenNames, tokens: Sequence[int], values: Sequence[TokenLogprobs]) -> list[dict[str, Any]]:
    """`choices[].logprobs.content` of a chat completion."""
    return [
        {
            **_entry(names, token, value.chosen),
            "top_logprobs": [_entry(names, other, logprob) for other, logprob in value.top],
        }
        for token, value in zip(tokens, values, strict=True)
    ]


def _entry(names: TokenNames, token: int, logprob: float) -> dict[str, Any]:
    return {"token": names.text(token), "logprob": logprob, "bytes": names.bytes(token)}


def completion_logprobs(
    names: TokenNames, tokens: Sequence[int], values: Sequence[TokenLogprobs], offset: int
) -> dict[str, list[Any]]:
    """`choices[].logprobs` of a completion; `offset`: characters of the answer before these tokens."""
    texts = [names.text(token) for token in tokens]
    *offsets, _ = accumulate(map(len, texts), initial=offset)
    return {
        "tokens": texts,
        "token_logprobs": [value.chosen for value in values],
        "top_logprobs": [{names.text(other): logprob for other, logprob in value.top} for value in values],
        "text_offset": offsets,
    }
