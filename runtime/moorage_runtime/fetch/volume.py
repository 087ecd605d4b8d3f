"""Models on a volume that the pod has mounted, and the copying that all local sources share."""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from moorage_api.names import SOURCES_PATH
from moorage_runtime.fetch.budget import Admit
from moorage_runtime.fetch.errors import InvalidSourceError, ModelNotFoundError
from moorage_runtime.fetch.selection import select
from moorage_runtime.fetch.source import VolumeSource

SOURCES = Path(SOURCES_PATH)


def fetch(source: VolumeSource, into: Path, admit: Admit, sources: Path = SOURCES) -> None:
    """Copy the model's files into `into`, once `admit` has agreed to their size.

    Raises:
        FetchError: as `model_files`.
    """
    copy(model_files(source, sources), into, admit)


def model_files(source: VolumeSource, sources: Path = SOURCES) -> dict[str, Path]:
    """Where each file of the model lies, by its name.

    Raises:
        ModelNotFoundError: the claim is not mounted, or has nothing at that path.
        InvalidSourceError: a link leads out of the claim, or `select` refuses what is there.
    """
    claim = (sources / source.claim).resolve()
    if not claim.is_dir():
        raise ModelNotFoundError(f"the claim '{source.claim}' is not mounted at {sources / source.claim}.")
    place = claim / source.path
    if not place.exists():
        raise ModelNotFoundError(f"the claim '{source.claim}' has nothing at '{source.path}'.")
    inside(place, claim)
    if place.is_file():
        select([place.name])  # refuses what is no model file
        return real_files(place.parent, claim, (place.name,))
    selection = select(_files(place, claim))
    return real_files(place / selection.folder, claim, selection.names)


def inside(path: Path, root: Path) -> Path:
    """The real path.

    Raises:
        InvalidSourceError: it leads out of `root`.
    """
    real = path.resolve()
    if not real.is_relative_to(root.resolve()):
        raise InvalidSourceError(f"{path.name} is a link that leads out of the source.")
    return real


def real_files(folder: Path, root: Path, names: tuple[str, ...]) -> dict[str, Path]:
    """Regular files by name; what they are links to must lie within `root`.

    Raises:
        InvalidSourceError: one leads out, or is no regular file.
    """
    files = {name: inside(folder / name, root) for name in names}
    for name, real in files.items():
        if not real.is_file():
            raise InvalidSourceError(f"{name} is not a regular file.")
    return files


def copy(files: Mapping[str, Path], into: Path, admit: Admit) -> None:
    """Copy files to these names.

    A copy and not a hard link: what was verified must not change when someone writes to the source. The kernel shares
    the blocks by itself where the file system can.
    """
    admit(sum(real.stat().st_size for real in files.values()))
    for name, real in files.items():
        shutil.copyfile(real, into / name)


def _files(place: Path, claim: Path) -> Iterator[str]:
    for folder, _, names in os.walk(place):
        for name in names:
            path = Path(folder, name)
            if path.is_symlink():
                inside(path, claim)
            yield str(path.relative_to(place))
