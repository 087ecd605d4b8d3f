"""Images of one program that is compiled here, built when its sources change; each has a layout of its own."""

from collections.abc import Callable

from e2e.cluster.command import lock
from e2e.cluster.images.layout import Layout
from e2e.cluster.images.transfer import canonical
from e2e.cluster.paths import cache_dir
from e2e.cluster.progress import Progress
from e2e.cluster.provider import Image


def ensure(image: str, what: str, build: Callable[[Layout, str], None], progress: Progress) -> Image:
    """Return the image `NAME:TAG`; `build` adds it to a layout where it is not there yet, and others of it go.

    Args:
        image: `NAME:TAG`; another tag for each state of the sources.
        what: what is built, for people.
        build: told the layout, and the reference to add.
        progress: told of it.

    Raises:
        ClusterError: the build fails.
    """
    name = image.partition(":")[0]
    layout = Layout(cache_dir() / name)
    found = Image(f"moorage/{image}", layout.folder)
    reference = canonical(found.reference)
    with lock(cache_dir() / f".{name}.lock", progress, what):
        if reference not in layout.references():
            with progress.step(f"build {what} (once)"):
                build(layout, reference)
            layout.forget(set(layout.references()) - {reference})
    return found
