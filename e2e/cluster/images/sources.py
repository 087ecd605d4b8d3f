"""What goes into each image, and the tag that follows from it: unchanged sources are an unchanged image."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TAG_LENGTH: Final = 12


@dataclass(frozen=True)
class Recipe:
    """How one image is built."""

    name: str
    paths: tuple[str, ...]
    """Files and folders of the repository that go into it, besides its Containerfile."""
    arguments: tuple[tuple[str, str], ...] = ()
    compiles: bool = False
    """Whether a stage of it needs a compiler."""

    @property
    def containerfile(self) -> str:
        """The path of its Containerfile in the repository."""
        return f"{self.name}/Containerfile"

    def reference(self, repository: Path, base: str) -> str:
        """Return the image's name with a tag that is a hash of everything that goes in.

        Args:
            repository: The root of the sources.
            base: What the image is built on.
        """
        digest = hashlib.sha256(repr((base, self.arguments)).encode())
        for path in sorted(_files(repository, [self.containerfile, ".dockerignore", *self.paths])):
            content = hashlib.sha256((repository / path).read_bytes()).hexdigest()
            digest.update(f"{path}\0{content}\n".encode())
        return f"moorage/{self.name}:{digest.hexdigest()[:_TAG_LENGTH]}"


def recipes(*, torch: str, models: str | None) -> list[Recipe]:
    """Return the recipes of the three images.

    Args:
        torch: Which lock file names the build of torch: `torch` or `torch-cpu`.
        models: The lock file of models that ship in the runtime's image, if any should.
    """
    common = ("LICENSE", "hatch_build.py", "pyproject.toml", "operator/moorage_api")
    runtime = (*common, "runtime/moorage_runtime", "requirements/runtime.txt", f"requirements/{torch}.txt")
    arguments = (("TORCH", torch), *((("MODELS", models),) if models else ()))
    return [
        Recipe("operator", (*common, "operator/moorage_operator", "requirements/operator.txt")),
        Recipe("gateway", (*common, "gateway/moorage_gateway", "requirements/gateway.txt")),
        Recipe("runtime", (*runtime, *((models,) if models else ())), arguments, compiles=True),
    ]


def _files(repository: Path, paths: list[str]) -> Iterator[str]:
    for path in paths:
        start = repository / path
        for found in [start] if start.is_file() else start.rglob("*"):
            if found.is_file() and "__pycache__" not in found.parts and found.suffix != ".so":
                yield str(found.relative_to(repository))
