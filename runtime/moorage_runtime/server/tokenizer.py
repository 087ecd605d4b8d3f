"""The model's tokenizer: from `tokenizer.json`, or built from a GGUF file's metadata.

GGUF says by name (`tokenizer.ggml.pre`) how text is split before byte-pair merges. A wrong split still yields text,
only worse answers, so a name that is not known here is refused instead of guessed.

Source: `llm_tokenizer_bpe` in llama.cpp (src/llama-vocab.cpp) and the `tokenizer.json` of the models named below.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2_SPLIT = _LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")
# `tokenizer.ggml.token_type`: control tokens are never text; user-defined ones are text that is never split.
_CONTROL, _USER_DEFINED = 3, 4


class TokenizerError(ValueError):
    """The model's tokenizer cannot be used here; the message says why."""


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _digits() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


@dataclass(frozen=True, kw_only=True)
class _Recipe:
    """How one family splits text, and whether a whole word found in the vocabulary skips the merges."""

    pre_tokenizer: pre_tokenizers.PreTokenizer
    ignore_merges: bool = False
    normalizer: normalizers.Normalizer | None = None
    adds_bos: bool = False


_RECIPES: Mapping[str, _Recipe] = {
    "gpt-2": _Recipe(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "llama-bpe": _Recipe(pre_tokenizer=_split(_LLAMA3_SPLIT), ignore_merges=True, adds_bos=True),
    "qwen2": _Recipe(pre_tokenizer=_split(_QWEN2_SPLIT), normalizer=normalizers.NFC()),
    "smollm": _Recipe(pre_tokenizer=_digits()),
}
_ALIASES = {"gpt2": "gpt-2", "llama3": "llama-bpe", "llama-v3": "llama-bpe"}


def load_tokenizer_json(path: Path) -> Tokenizer:
    """The tokenizer that a checkpoint ships.

    Raises:
        TokenizerError: the file is none that the `tokenizers` library reads.
    """
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for every fault of the file
        raise TokenizerError(f"{path.name} cannot be read: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def gguf_tokenizer(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that a GGUF file's metadata describes.

    Raises:
        TokenizerError: not a byte-level BPE, or split in a way that is not known here.
    """
    kind, name = metadata.get("tokenizer.ggml.model"), _splitting(metadata)
    if kind != "gpt2":
        raise TokenizerError(
            f"the GGUF file's tokenizer is of type '{kind}'; only byte-level BPE ('gpt2') is read from GGUF. "
            "Put a tokenizer.json beside the file."
        )
    recipe = _RECIPES.get(_ALIASES.get(name, name))
    if recipe is None:
        raise TokenizerError(
            f"the GGUF file's pre-tokenizer '{name}' is not one of {', '.join(sorted(_RECIPES))}. "
            "Put a tokenizer.json beside the file."
        )
    tokens = _texts(metadata, "tokenizer.ggml.tokens")
    merges = [_pair(merge) for merge in _texts(metadata, "tokenizer.ggml.merges")]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    try:
        model = models.BPE(vocabulary, merges, ignore_merges=recipe.ignore_merges, fuse_unk=False)
    except Exception as error:  # the library raises bare Exception for every fault of the file
        raise TokenizerError(f"the GGUF file's tokenizer cannot be used: {error}") from error
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = recipe.pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    if recipe.normalizer is not None:
        tokenizer.normalizer = recipe.normalizer
    _add_special(tokenizer, tokens, metadata.get("tokenizer.ggml.token_type", []))
    return tokenizer


def adds_bos(metadata: Mapping[str, Any]) -> bool:
    """Whether plain text gets the begin token in front (a chat template writes its own)."""
    name = _splitting(metadata)
    recipe = _RECIPES.get(_ALIASES.get(name, name))
    return bool(metadata.get("tokenizer.ggml.add_bos_token", recipe is not None and recipe.adds_bos))


def _splitting(metadata: Mapping[str, Any]) -> str:
    return str(metadata.get("tokenizer.ggml.pre", "gpt-2"))


def _texts(metadata: Mapping[str, Any], key: str) -> list[str]:
    texts = metadata.get(key)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise TokenizerError(f"the GGUF file has no list of texts {key}. Put a tokenizer.json beside the file.")
    return texts


def _pair(merge: str) -> tuple[str, str]:
    # The first character may itself be a space in a damaged file; byte-level vocabularies never hold one.
    left, _, right = merge.partition(" ")
    return left, right


def _add_special(tokenizer: Tokenizer, tokens: list[str], types: list[int]) -> None:
    typed = list(zip(tokens, types, strict=False))
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token, kind in typed if kind == _CONTROL]
    )
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token, kind in typed if kind == _USER_DEFINED])
