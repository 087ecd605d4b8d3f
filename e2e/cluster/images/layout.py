"""Folders in the OCI image layout (github.com/opencontainers/image-spec, image-layout.md).

Several images share one layout, and so the layers that they have in common. A node is sent only the blobs that it
lacks: after a change of code that is the last small layer of an image, not its gigabyte of libraries.
"""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from e2e.cluster.provider import ClusterError

_VERSION: Final = {"imageLayoutVersion": "1.0.0"}
_REFERENCE: Final = "org.opencontainers.image.ref.name"
_CONTAINERD_NAME: Final = "io.containerd.image.name"
_INDEX_TYPE: Final = "application/vnd.oci.image.index.v1+json"
_MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
_CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
_LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar"
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Layout:
    """An image layout in a folder."""

    folder: Path

    def references(self) -> list[str]:
        """Return the names of the images that it holds, the last added last."""
        return [each["annotations"][_REFERENCE] for each in self._manifests()]

    def descriptor(self, reference: str) -> dict[str, Any]:
        """Return what the index says about an image.

        Raises:
            ClusterError: the layout holds no image of that name.
        """
        for manifest in self._manifests():
            if manifest["annotations"][_REFERENCE] == reference:
                return manifest
        raise ClusterError(f"There is no image {reference} in {self.folder}")

    def blobs(self, reference: str) -> list[str]:
        """Return the digests of everything that the image consists of: manifest, configuration, layers."""
        digest = self.descriptor(reference)["digest"]
        manifest = json.loads(self.path(digest).read_bytes())
        return [digest, manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]

    def path(self, digest: str) -> Path:
        """Return the file of a blob."""
        return self.folder / "blobs" / digest.replace(":", "/")

    def forget(self, references: Container[str]) -> None:
        """Forget images, and the blobs that only they used."""
        kept = [each for each in self._manifests() if each["annotations"][_REFERENCE] not in references]
        self._write_index(kept)
        used = {blob for each in kept for blob in self.blobs(each["annotations"][_REFERENCE])}
        for path in self.folder.glob("blobs/*/*"):
            if f"{path.parent.name}:{path.name}" not in used:
                path.unlink()

    def add_program(self, reference: str, binary: Path, *others: Path) -> None:
        """Add an image that consists of one program, which it runs, and of files that lie beside it."""
        layer = self._add_blob(_tar_of(binary, *others))
        config = {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Entrypoint": [f"/{binary.name}"], "User": "65532:65532"},
            "rootfs": {"type": "layers", "diff_ids": [layer]},
        }
        self.add_image(reference, json.dumps(config).encode())

    def add_image(self, reference: str, config: bytes) -> None:
        """Add an image whose layers are in the layout already, uncompressed, under the digests in its configuration.

        Layers are not compressed: they only travel from one folder of a machine to another.
        """
        layers: list[str] = json.loads(config)["rootfs"]["diff_ids"]
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST_TYPE,
            "config": self._describe(_CONFIG_TYPE, self._add_blob(config)),
            "layers": [self._describe(_LAYER_TYPE, layer) for layer in layers],
        }
        descriptor = self._describe(_MANIFEST_TYPE, self._add_blob(json.dumps(manifest).encode()))
        others = [each for each in self._manifests() if each["annotations"][_REFERENCE] != reference]
        self._write_index([*others, {**descriptor, "annotations": {_REFERENCE: reference}}])

    def _manifests(self) -> list[dict[str, Any]]:
        index = self.folder / "index.json"
        if not index.exists():
            return []
        manifests: list[dict[str, Any]] = json.loads(index.read_bytes())["manifests"]
        return manifests

    def _add_blob(self, content: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.path(digest).parent.mkdir(parents=True, exist_ok=True)
        self.path(digest).write_bytes(content)
        return digest

    def _describe(self, media_type: str, digest: str) -> dict[str, Any]:
        return {"mediaType": media_type, "digest": digest, "size": self.path(digest).stat().st_size}

    def _write_index(self, manifests: Sequence[dict[str, Any]]) -> None:
        (self.folder / "oci-layout").write_text(json.dumps(_VERSION))
        unfinished = self.folder / ".index.json"
        unfinished.write_text(_index(manifests))
        unfinished.rename(self.folder / "index.json")


def write_archive(layout: Layout, references: Sequence[str], present: Container[str], out: IO[bytes]) -> int:
    """Write images as one archive that `ctr images import` reads; returns the bytes of the blobs in it.

    Args:
        layout: Where they lie.
        references: Their names; containerd knows them by these.
        present: Digests of blobs that the node has, which are left out.
        out: Where to write; need not be seekable.
    """
    manifests = []
    missing = []
    for reference in references:
        names = {_REFERENCE: reference, _CONTAINERD_NAME: reference}
        manifests.append({**layout.descriptor(reference), "annotations": names})
        missing += [blob for blob in layout.blobs(reference) if blob not in present and blob not in missing]
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        _add_bytes(archive, "oci-layout", json.dumps(_VERSION).encode())
        for blob in missing:
            archive.add(layout.path(blob), "blobs/" + blob.replace(":", "/"))
        _add_bytes(archive, "index.json", _index(manifests).encode())
    return sum(layout.path(blob).stat().st_size for blob in missing)


def _index(manifests: Sequence[dict[str, Any]]) -> str:
    return json.dumps({"schemaVersion": 2, "mediaType": _INDEX_TYPE, "manifests": list(manifests)})


def _add_bytes(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def _tar_of(*files: Path) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in files:
            entry = tarfile.TarInfo(path.name)
            entry.mode = 0o755
            entry.size = path.stat().st_size
            with path.open("rb") as content:
                archive.addfile(entry, content)
    return out.getvalue()
