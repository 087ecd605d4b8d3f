"""Giving images to a node's containerd, whoever runs it: `ctr` is called through the provider's own way in."""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from e2e.cluster.command import failure, run
from e2e.cluster.images.layout import Layout, write_archive
from e2e.cluster.progress import Progress

_REGISTRY: Final = "docker.io/"


def canonical(reference: str) -> str:
    """Return a name as containerd and kubelet know it: a name without a host belongs to Docker's registry."""
    return reference if reference.startswith(_REGISTRY) else f"{_REGISTRY}{reference}"


def load(layout: Layout, references: Sequence[str], ctr: Sequence[str], progress: Progress) -> None:
    """Import those of the images that the node lacks, sending only the blobs that it lacks.

    Args:
        layout: Where the images lie, under their canonical names.
        references: The images' names as a pod gives them.
        ctr: The command that reaches the node's `ctr`, with standard input passed on.
        progress: Where to say what is done.

    Raises:
        ClusterError: the node does not answer or refuses an archive.
    """
    ctr = [*ctr, "--namespace", "k8s.io"]
    known = set(run([*ctr, "images", "list", "--quiet"]).split())
    lacking = [name for reference in references if (name := canonical(reference)) not in known]
    if not lacking:
        progress.say(f"✓ the node has {' '.join(references)}")
        return
    present = set(run([*ctr, "content", "list", "--quiet"]).split())
    for name in lacking:
        with progress.step(f"load {name.removeprefix(_REGISTRY)}") as step:
            sent = _import(layout, name, present, [*ctr, "images", "import", "-"])
            step.result(f"{sent / 1e6:.1f} MB sent")
        present |= set(layout.blobs(name))


def _import(layout: Layout, name: str, present: set[str], argv: list[str]) -> int:
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=said, stderr=subprocess.STDOUT)
        try:
            with process:
                sent = write_archive(layout, [name], present, process.stdin or said)
        except BrokenPipeError:  # it stopped reading: what it said tells why
            sent = 0
        if process.returncode:
            said.seek(0)
            raise failure(argv, process.returncode, said.read().decode(errors="replace"))
    return sent


def pause_layout(folder: Path, reference: str, binary: Path) -> Layout:
    """Make the image of the process that holds a pod's namespaces."""
    layout = Layout(folder)
    layout.add_program(reference, binary)
    return layout
