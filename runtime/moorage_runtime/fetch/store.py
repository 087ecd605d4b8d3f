"""The folder that the server reads: files appear in it verified and complete, or not at all."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from moorage_runtime.fetch.digest import FileDigest, digest_file, digest_model
from moorage_runtime.fetch.errors import DigestMismatchError, InvalidSourceError
from moorage_runtime.fetch.selection import refuse_code

_INCOMING = ".incoming"
_MANIFEST = ".moorage.json"
_LOCK = ".lock"


class Manifest(msgspec.Struct, frozen=True):
    """What lies in the folder; written last, so that its presence says that everything is there."""

    source: str
    digest: str
    files: list[FileDigest]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


class Store:
    """The target folder of a fetch."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.incoming = folder / _INCOMING

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other fetches into the same folder out: pods may share a volume."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def complete(self, source: str, digest: str | None) -> Manifest | None:
        """What an earlier fetch of the same left here, if all of it is there still."""
        manifest = self._manifest()
        if manifest is None or manifest.source != source or digest not in (None, manifest.digest):
            return None
        if all(self._has(file) for file in manifest.files):
            return manifest
        return None

    def begin(self, source: str) -> None:
        """Make the folder for what comes in; what an interrupted fetch of the same source left there is resumed."""
        marker = self.incoming / ".source"
        if self.incoming.exists() and not (marker.is_file() and marker.read_text() == source):
            shutil.rmtree(self.incoming)
        self.incoming.mkdir(exist_ok=True)
        marker.write_text(source)

    def commit(self, source: str, digest: str | None) -> Manifest:
        """Verify what has come in and move it into place.

        Raises:
            DigestMismatchError: it is not what `digest` says; nothing is moved and it is deleted.
            InvalidSourceError: a configuration wants Python code, or is not JSON.
        """
        paths = sorted(path for path in self.incoming.rglob("*") if _is_model_file(path, self.incoming))
        for path in paths:
            check_config(path)
        files = [digest_file(path, path.name) for path in paths]
        found = digest_model(files)
        if digest not in (None, found):
            shutil.rmtree(self.incoming)
            raise DigestMismatchError(f"the files of {source} have the digest {found}, not {digest}.")
        self._clear()
        for path in paths:
            path.replace(self._folder / path.name)
        manifest = Manifest(source, found, files)
        self._write(manifest)
        shutil.rmtree(self.incoming)
        return manifest

    def _manifest(self) -> Manifest | None:
        path = self._folder / _MANIFEST
        if not path.is_file():
            return None
        try:
            return msgspec.json.decode(path.read_bytes(), type=Manifest)
        except msgspec.DecodeError:
            return None  # cut short or from another version: fetch anew

    def _has(self, file: FileDigest) -> bool:
        path = self._folder / file.name
        return path.is_file() and path.stat().st_size == file.size

    def _clear(self) -> None:
        """Take away an earlier model, manifest first, so that no moment pretends that it is whole."""
        manifest = self._manifest()
        (self._folder / _MANIFEST).unlink(missing_ok=True)
        for file in manifest.files if manifest else ():
            (self._folder / Path(file.name).name).unlink(missing_ok=True)

    def _write(self, manifest: Manifest) -> None:
        new = self.incoming / _MANIFEST
        new.write_bytes(msgspec.json.encode(manifest))
        with new.open("rb") as file:
            os.fsync(file.fileno())
        new.replace(self._folder / _MANIFEST)


def _is_model_file(path: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return path.is_file() and not path.is_symlink() and not hidden


def check_config(path: Path) -> None:
    """Read one file of a model, where it is JSON, before anything else does.

    Raises:
        InvalidSourceError: it wants Python code of its own, or is not JSON.
    """
    if path.suffix != ".json":
        return
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidSourceError(f"{path.name} is not valid JSON: {error}") from error
    if isinstance(value, dict):
        refuse_code(path.name, value)
