"""Models on a Hugging Face hub (`HF_ENDPOINT`, `HF_TOKEN`), resumed where an earlier attempt stopped."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from moorage_runtime.fetch.budget import Admit
from moorage_runtime.fetch.errors import FetchError, FetchFailedError, ModelNotFoundError, UnauthorizedError
from moorage_runtime.fetch.selection import Selection, select
from moorage_runtime.fetch.source import HubSource
from moorage_runtime.fetch.store import check_config

_UNAUTHORIZED = (401, 403)
_NOT_FOUND = 404


def fetch(source: HubSource, into: Path, admit: Admit) -> None:
    """Bring the model's files into `into`: configuration first, then, once `admit` agrees to the size, the weights.

    Raises:
        FetchError: no such model, other credentials wanted, or the network failed.
    """
    with _explained(source, into / ".hub"):
        _download(source, into, admit)


def look_up(source: HubSource, home: Path) -> tuple[str, int]:
    """The commit that a branch or tag is now, and the bytes that would be fetched; `home` is a folder to write to.

    Raises:
        FetchError: as `fetch`.
    """
    with _explained(source, home):
        commit, sizes, selection = _listed(source)
        return commit, sum(sizes[str(PurePosixPath(selection.folder, name))] for name in selection.names)


@contextmanager
def _explained(source: HubSource, home: Path) -> Iterator[None]:
    """The library, ready to be imported; its errors in the user's words."""
    # The library reads its environment when it is imported; its own folder must be one that can be written.
    os.environ.setdefault("HF_HOME", str(home))
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from httpx2 import HTTPError  # noqa: PLC0415 - as above; what the library talks with, and whose faults it lets through
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415 - as above

    try:
        yield
    except HfHubHTTPError as error:
        raise _explain(source, error.response.status_code, str(error)) from error
    except (HTTPError, OSError, ValueError) as error:  # ValueError: a file that is too large for plain HTTP
        raise FetchFailedError(f"hf://{source.repository} could not be downloaded: {error}") from error


def _listed(source: HubSource) -> tuple[str, dict[str, int], Selection]:
    """The commit, the sizes of all its files, and those that make the model."""
    from huggingface_hub import HfApi  # noqa: PLC0415 - see `_explained`

    info = HfApi().model_info(source.repository, revision=source.revision, files_metadata=True)
    if info.sha is None:
        raise FetchFailedError(f"hf://{source.repository}: the hub does not say which commit {source.revision} is.")
    sizes = {item.rfilename: item.size or 0 for item in info.siblings or []}
    return info.sha, sizes, select(sizes, only=source.file)


def _download(source: HubSource, into: Path, admit: Admit) -> None:
    commit, sizes, selection = _listed(source)
    members = {name: str(PurePosixPath(selection.folder, name)) for name in selection.names}
    admit(sum(sizes[member] for member in members.values()))
    _keep_only(commit, into)
    for name, member in members.items():
        # Pinned to the commit that was listed, so that a push meanwhile mixes nothing.
        _file(source.repository, member, commit, sizes[member], into / name)
        check_config(into / name)


def _keep_only(commit: str, into: Path) -> None:
    """Take away what an earlier, interrupted fetch brought of another commit: a branch may have moved since."""
    marker = into / ".commit"
    if marker.is_file() and marker.read_text() != commit:
        for path in into.iterdir():
            if path.is_file() and not path.name.startswith("."):
                path.unlink()
    marker.write_text(commit)


def _file(repository: str, member: str, commit: str, size: int, path: Path) -> None:
    """Download one file, going on where an earlier process was stopped.

    The library's own `hf_hub_download` begins anew in every process, which costs gigabytes when a pod is restarted.
    """
    from huggingface_hub import hf_hub_url  # noqa: PLC0415 - see `_explained`
    from huggingface_hub.file_download import http_get  # noqa: PLC0415 - see `_explained`
    from huggingface_hub.utils._headers import build_hf_headers  # noqa: PLC0415 - see `_explained`

    if path.exists():
        return
    # The commit is in the name: bytes of two commits must never meet in one file.
    part = path.with_name(f".{commit}.{path.name}")
    url = hf_hub_url(repository, member, revision=commit)
    # Compressed, a file could not be continued in its middle.
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    with part.open("ab") as file:
        http_get(url, file, resume_size=file.tell(), headers=headers, expected_size=size)
    part.rename(path)


def _explain(source: HubSource, status: int, text: str) -> FetchError:
    where = f"hf://{source.repository}@{source.revision}"
    if status in _UNAUTHORIZED:
        return UnauthorizedError(f"{where}: the hub refuses access; the model may be private, gated or misspelt.")
    if status == _NOT_FOUND:
        return ModelNotFoundError(f"{where}: the hub has no such model or revision.")
    return FetchFailedError(f"{where}: the hub answered {status}: {text.splitlines()[0]}")
