"""Which files of a source make a model; pure, whatever the source.

Only formats that hold data and nothing else are taken: safetensors, else GGUF, with configuration and tokenizer. What
could run code is left behind, and refused where the model cannot be without it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from moorage_runtime.fetch.errors import InvalidSourceError, ModelNotFoundError

_BESIDE = frozenset(
    {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
        "chat_template.jinja",
        "model.safetensors.index.json",
    }
)
_PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".msgpack", ".h5"})


@dataclass(frozen=True)
class Selection:
    """The files of a model; paths relative to the source, all in `folder`."""

    folder: PurePosixPath
    names: tuple[str, ...]
    """Configuration first, weights last, so that what is wrong is known before gigabytes have come."""


def select(paths: Iterable[str], *, only: str | None = None) -> Selection:
    """Choose from all files of a source; `only` names one GGUF file.

    Raises:
        InvalidSourceError: only pickled weights, several models, or a path that leaves the source.
        ModelNotFoundError: no weights at all.
    """
    files = [_checked(path) for path in paths]
    folders: dict[PurePosixPath, list[str]] = defaultdict(list)
    for file in files:
        folders[file.parent].append(file.name)
    if only is not None:
        return _one_gguf(folders, PurePosixPath(only))
    with_weights = [folder for folder, names in folders.items() if _weights(names)]
    if not with_weights:
        raise _nothing(files)
    # A repository may hold variants in folders of their own; what lies at the top is the model.
    folder = min(with_weights, key=lambda path: (len(path.parts), str(path)))
    rivals = [str(other) for other in with_weights if len(other.parts) == len(folder.parts) and other != folder]
    if rivals:
        raise InvalidSourceError(f"the source holds several models: {folder}, {', '.join(rivals)}; name one.")
    return _selection(folder, folders[folder], _weights(folders[folder]))


def refuse_code(name: str, config: Mapping[str, Any]) -> None:
    """Refuse a configuration that sends its reader to Python code beside it.

    Raises:
        InvalidSourceError: it has `auto_map`.
    """
    if "auto_map" in config:
        raise InvalidSourceError(
            f"{name} has 'auto_map': the model needs its own Python code, which is never run here."
        )


def _checked(path: str) -> PurePosixPath:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\\" in path or "\0" in path:
        raise InvalidSourceError(f"the source holds a file whose path leaves it: {path!r}")
    return pure


def _weights(names: Sequence[str]) -> list[str]:
    safetensors = [name for name in names if name.endswith(".safetensors")]
    # Some repositories hold the same weights a second time, as `consolidated.safetensors`.
    safetensors = [name for name in safetensors if name.startswith("model")] or safetensors
    gguf = [name for name in names if name.endswith(".gguf")]
    if not safetensors and len(gguf) > 1:
        raise InvalidSourceError(f"the source holds several GGUF files: {', '.join(sorted(gguf))}; name one of them.")
    return safetensors or gguf


def _one_gguf(folders: Mapping[PurePosixPath, Sequence[str]], wanted: PurePosixPath) -> Selection:
    if wanted.name not in folders.get(wanted.parent, ()):
        raise ModelNotFoundError(f"the source has no file {wanted}.")
    return _selection(wanted.parent, folders[wanted.parent], [wanted.name])


def _selection(folder: PurePosixPath, names: Sequence[str], weights: Sequence[str]) -> Selection:
    beside = sorted(name for name in names if name in _BESIDE)
    return Selection(folder, (*beside, *sorted(weights)))


def _nothing(files: Sequence[PurePosixPath]) -> InvalidSourceError | ModelNotFoundError:
    pickled = [str(file) for file in files if file.suffix in _PICKLES]
    if pickled:
        return InvalidSourceError(
            f"the weights are pickled ({pickled[0]}), and reading a pickle runs code. "
            "Use a model with safetensors or GGUF files."
        )
    return ModelNotFoundError("the source has neither safetensors nor GGUF files.")
