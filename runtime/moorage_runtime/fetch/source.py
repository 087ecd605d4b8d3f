"""Where a model comes from, as one line of text: `python://…`, `pvc://…`, `hf://…`."""

import re
from dataclasses import dataclass

from moorage_runtime.fetch.errors import InvalidSourceError

_PYTHON = re.compile(r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?:==(?P<version>[A-Za-z0-9.!+_-]+))?")
_PVC = re.compile(r"(?P<claim>[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?)(?:/(?P<path>.*))?")
_HUB = re.compile(
    r"(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:/(?P<file>[^@]+\.gguf))?(?:@(?P<revision>[\w./-]+))?"
)


@dataclass(frozen=True)
class PythonSource:
    """A Python distribution that ships a model."""

    name: str
    version: str | None

    @property
    def requirement(self) -> str:
        """As pip writes it."""
        return self.name if self.version is None else f"{self.name}=={self.version}"


@dataclass(frozen=True)
class VolumeSource:
    """A folder, or a GGUF file, in a PersistentVolumeClaim; `path` is empty for the whole claim."""

    claim: str
    path: str


@dataclass(frozen=True)
class HubSource:
    """A model on a Hugging Face hub; `file` names one GGUF file where a repository has several."""

    repository: str
    file: str | None
    revision: str


Source = PythonSource | VolumeSource | HubSource


def parse_source(text: str) -> Source:
    """Read a source.

    Raises:
        InvalidSourceError: an unknown scheme, or a part that cannot be; the message shows the form.
    """
    scheme, separator, rest = text.partition("://")
    if ".." in rest.split("/"):
        raise InvalidSourceError(f"'{text}' is no source: a path must not climb with '..'.")
    match scheme + separator:
        case "python://":
            return _python(rest)
        case "pvc://":
            return _volume(rest)
        case "hf://":
            return _hub(rest)
    raise InvalidSourceError(f"'{text}' is no source: it must begin with python://, pvc:// or hf://.")


def _python(rest: str) -> PythonSource:
    match = _PYTHON.fullmatch(rest)
    if match is None:
        raise InvalidSourceError(f"'python://{rest}' must have the form python://PACKAGE or python://PACKAGE==VERSION.")
    return PythonSource(match["name"], match["version"])


def _volume(rest: str) -> VolumeSource:
    match = _PVC.fullmatch(rest)
    if match is None:
        raise InvalidSourceError(f"'pvc://{rest}' must have the form pvc://CLAIM or pvc://CLAIM/PATH.")
    return VolumeSource(match["claim"], (match["path"] or "").strip("/"))


def _hub(rest: str) -> HubSource:
    match = _HUB.fullmatch(rest)
    if match is None:
        raise InvalidSourceError(f"'hf://{rest}' must have the form hf://ORG/NAME or hf://ORG/NAME@REVISION.")
    return HubSource(match["repository"], match["file"], match["revision"] or "main")
