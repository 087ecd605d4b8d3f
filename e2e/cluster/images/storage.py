"""Reads image layers out of buildah's own storage.

`buildah push` writes or compresses every layer of an image each time, a gigabyte of libraries included. So the layers
are read from where buildah keeps them, and only those that are wanted: `layers.json` names them by the digest of
their content, and a layer's archive is put together again from its files and the record of everything between them
(github.com/vbatts/tar-split). What comes out is compared with the digest, so that a mistake cannot pass.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from e2e.cluster.command import run
from e2e.cluster.provider import ClusterError

_FILE: Final = 1
_SEGMENT: Final = 2
_CHUNK: Final = 1 << 20


@dataclass(frozen=True)
class Storage:
    """The storage of containers and images that buildah uses."""

    root: Path
    driver: str

    @classmethod
    def find(cls) -> "Storage":
        """Ask buildah where it keeps its layers.

        Raises:
            ClusterError: it keeps them in a way that this module does not read.
        """
        store = json.loads(run(["buildah", "info"]))["store"]
        if store["GraphDriverName"] != "overlay":
            raise ClusterError(f"buildah keeps layers by {store['GraphDriverName']}; only its overlay driver is known")
        return cls(Path(store["GraphRoot"]), store["GraphDriverName"])

    def export(self, digest: str, target: Path) -> None:
        """Write the layer with this digest as an uncompressed archive.

        Raises:
            ClusterError: there is no such layer, or what was read is not what the digest says.
        """
        layer = self._layer(digest)
        unfinished = target.with_name(f".{target.name}")
        hashed = hashlib.sha256()
        with unfinished.open("wb") as out:
            for chunk in self._chunks(layer["id"]):
                hashed.update(chunk)
                out.write(chunk)
        if f"sha256:{hashed.hexdigest()}" != digest:
            unfinished.unlink()
            raise ClusterError(f"The layer {digest} in {self.root} is damaged; remove its image and build again")
        unfinished.rename(target)

    def _layer(self, digest: str) -> dict[str, Any]:
        layers: list[dict[str, Any]] = json.loads((self._records / "layers.json").read_bytes())
        for layer in layers:
            if layer.get("diff-digest") == digest:
                return layer
        raise ClusterError(f"There is no layer {digest} in {self.root}")

    @property
    def _records(self) -> Path:
        return self.root / f"{self.driver}-layers"

    def _chunks(self, layer: str) -> Iterator[bytes]:
        content = self.root / self.driver / layer / "diff"
        with gzip.open(self._records / f"{layer}.tar-split.gz") as entries:
            for line in entries:
                entry = json.loads(line)
                if entry["type"] == _SEGMENT:
                    yield base64.b64decode(entry["payload"])
                elif entry["type"] == _FILE and entry.get("size"):
                    with (content / _name(entry)).open("rb") as file:
                        yield from _read(file)


def _name(entry: dict[str, Any]) -> str:
    """Return a file's name; one that is no UTF-8 is recorded in base64."""
    raw = entry.get("name_raw")
    return base64.b64decode(raw).decode(errors="surrogateescape") if raw else str(entry["name"])


def _read(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk
