"""Writes an image of one layer as an archive that `ctr images import` reads.

A builder of images is not needed for this: an archive is a tar of the layer, the image's configuration, and a list of
names (https://github.com/moby/moby/blob/v20.10.24/image/spec/v1.2.md#combined-image-json--filesystem-changeset-format).
One archive may carry many names for one image.
"""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

_LAYER: Final = "layer.tar"
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


def write(archive: Path, layer: Path, names: Sequence[str], config: Mapping[str, Any]) -> None:
    """Write the archive.

    Args:
        archive: The file to write.
        layer: The image's whole file system, an uncompressed tar.
        names: References under which the image is imported, tag included.
        config: What a container of it runs, in the words of the OCI image specification: `Entrypoint`, `Env`, …
    """
    machine = platform.machine()
    image = _json(
        {
            "architecture": _ARCHITECTURES.get(machine, machine),
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_digest(layer)}"]},
        },
    )
    name = f"{hashlib.sha256(image).hexdigest()}.json"
    manifest = _json([{"Config": name, "RepoTags": list(names), "Layers": [_LAYER]}])
    with tarfile.open(archive, "w") as tar:
        _add(tar, name, image)
        _add(tar, "manifest.json", manifest)
        tar.add(layer, _LAYER)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
