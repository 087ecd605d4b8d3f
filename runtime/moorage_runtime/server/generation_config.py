"""What a model's publisher recommends: `generation_config.json`, and the tokens that end an answer.

Such a file is checked as a client's request is: what it recommends goes with every request that does not say otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moorage_runtime.engine.admission import sampling_problem
from moorage_runtime.engine.messages import SamplingParams
from moorage_runtime.formats.token_ids import token_ids

FILE = "generation_config.json"
_GGUF_ENDS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")


class GenerationConfigError(ValueError):
    """A model's files recommend what cannot be done; the message says what."""


@dataclass(frozen=True, kw_only=True)
class SamplingDefaults:
    """What `generation_config.json` recommends; the neutral value where it says nothing."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


def sampling_defaults(generation: Mapping[str, Any]) -> SamplingDefaults:
    """The recommendations in a `generation_config.json`.

    Raises:
        GenerationConfigError: one of them is no number, or none that tokens can be drawn with.
    """
    if generation.get("do_sample") is False:
        return SamplingDefaults(temperature=0.0)
    neutral = vars(SamplingDefaults())
    said = {name: _number(name, generation[name]) for name in neutral if generation.get(name) is not None}
    if "top_k" in said:
        said["top_k"] = max(0, int(said["top_k"]))  # -1 is "all" in some files; the engine knows 0
    if problem := sampling_problem(SamplingParams(**{**neutral, **said}), vocab_size=0):
        raise GenerationConfigError(f"{FILE}: {problem}; correct the file, or take the field out")
    return SamplingDefaults(**{**neutral, **said})


def ending_ids(generation: Mapping[str, Any], config: Mapping[str, Any], metadata: Mapping[str, Any]) -> frozenset[int]:
    """Tokens that end an answer, from `generation_config.json`, `config.json` and a GGUF file's metadata.

    Raises:
        GenerationConfigError: one of these says something that is no token id.
    """
    said = {
        f"{FILE}: eos_token_id": generation.get("eos_token_id"),
        "config.json: eos_token_id": config.get("eos_token_id"),
        **{f"GGUF metadata {key}": metadata.get(key) for key in _GGUF_ENDS},
    }
    found: set[int] = set()
    for place, value in said.items():
        try:
            found.update(token_ids(value))
        except ValueError as error:
            raise GenerationConfigError(f"{place}: {error}") from error
    return frozenset(found)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise GenerationConfigError(f"{FILE}: '{name}' is not a number but {value!r}")
    if name == "top_k" and value != value // 1:  # NaN and infinity as well
        raise GenerationConfigError(f"{FILE}: 'top_k' is not a whole number but {value!r}")
    return value
