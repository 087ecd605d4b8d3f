"""What a checkpoint on disk tells the API process: tokenizer, chat template, generation defaults.

The engine process reads the same folder for weights and architecture; neither passes the other what it can read itself.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from moorage_runtime.formats.gguf import GgufError, read_metadata
from moorage_runtime.server.chat_template import ChatTemplate, TemplateError
from moorage_runtime.server.generation_config import (
    GenerationConfigError,
    SamplingDefaults,
    ending_ids,
    sampling_defaults,
)
from moorage_runtime.server.tokenizer import TokenizerError, adds_bos, gguf_tokenizer, load_tokenizer_json


class ModelCardError(ValueError):
    """The folder holds no model that can be served; the message says why."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Everything about a model but its weights."""

    tokenizer: Tokenizer
    template: ChatTemplate | None
    defaults: SamplingDefaults
    eos_token_ids: frozenset[int]
    """Tokens that end an answer, as far as this process knows; the engine may know more."""
    bos_token_id: int | None
    """Goes in front of a plain prompt; None where the tokenizer adds it itself, or the model has none."""


_FAULTS = (
    TokenizerError,
    TemplateError,
    GenerationConfigError,
    GgufError,
    OSError,
    json.JSONDecodeError,
    UnicodeDecodeError,
)


def load_card(folder: Path) -> ModelCard:
    """Read the model in `folder` (or the GGUF file that `folder` is).

    Raises:
        ModelCardError: something is missing or cannot be used.
    """
    try:
        return _load(folder)
    except _FAULTS as error:
        raise ModelCardError(str(error)) from error


def _load(folder: Path) -> ModelCard:
    gguf = _gguf_file(folder)
    metadata = read_metadata(gguf) if gguf is not None else {}
    beside = folder if folder.is_dir() else folder.parent
    own = beside / "tokenizer.json"
    if own.is_file():
        tokenizer, bos = load_tokenizer_json(own), None
    elif metadata:
        tokenizer = gguf_tokenizer(metadata)
        bos = metadata.get("tokenizer.ggml.bos_token_id") if adds_bos(metadata) else None
    else:
        raise ModelCardError(
            f"there is neither a tokenizer.json nor a GGUF file in {folder}; a model's folder has one of them"
        )
    generation = _json(beside / "generation_config.json")
    return ModelCard(
        tokenizer=tokenizer,
        template=_template(beside, metadata),
        defaults=sampling_defaults(generation),
        eos_token_ids=ending_ids(generation, _json(beside / "config.json"), metadata),
        bos_token_id=bos,
    )


def _gguf_file(folder: Path) -> Path | None:
    if folder.is_file():
        if folder.suffix != ".gguf":
            raise ModelCardError(f"{folder} is no model: give the folder that it is in, or a file that ends in .gguf")
        return folder
    if not folder.is_dir():
        raise ModelCardError(
            f"there is no {folder}; give a model's folder or a .gguf file "
            "(`moorage-fetch SOURCE --into FOLDER` brings one)"
        )
    return min(folder.glob("*.gguf"), default=None)


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ModelCardError(f"{path.name} does not hold a JSON object")
    return value


def _template(folder: Path, metadata: Mapping[str, Any]) -> ChatTemplate | None:
    config = _json(folder / "tokenizer_config.json")
    source = _template_source(folder, config) or metadata.get("tokenizer.chat_template")
    if source is None:
        return None
    if not isinstance(source, str):
        raise ModelCardError(f"the model's chat template is no text but {source!r}")
    return ChatTemplate(source, _special_tokens(config, metadata))


def _template_source(folder: Path, config: Mapping[str, Any]) -> object:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    source = config.get("chat_template")
    if isinstance(source, list):  # several templates by name; `default` is the plain conversation
        named = (item for item in source if isinstance(item, dict) and item.get("name") == "default")
        source = next((item.get("template") for item in named), None)
    return source


def _special_tokens(config: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, str]:
    tokens: list[str] = metadata.get("tokenizer.ggml.tokens", [])
    found = {}
    for name in ("bos_token", "eos_token", "unk_token", "pad_token"):
        value = config.get(name)
        index = metadata.get(f"tokenizer.ggml.{name.replace('unk', 'unknown').replace('pad', 'padding')}_id")
        if isinstance(value, dict):  # an AddedToken, written out
            value = value.get("content")
        if value is None and isinstance(index, int) and 0 <= index < len(tokens):
            value = tokens[index]
        if isinstance(value, str):
            found[name] = value
    return found
