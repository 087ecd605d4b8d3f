"""The steps that make a cluster, on either engine."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from e2e.cluster import packages
from e2e.cluster.binary import ensure_binaries
from e2e.cluster.command import failure, run, which
from e2e.cluster.kind import own_engine, tools
from e2e.cluster.kind.docker import Docker
from e2e.cluster.kind.node_image import ensure_node_root
from e2e.cluster.kind.place import Place
from e2e.cluster.local.start import open_port
from e2e.cluster.progress import Progress

IMAGE_VARIABLE: Final = "MOORAGE_KIND_IMAGE"
"""Names a node image other than kind's default one: another version of Kubernetes, or a registry of one's own."""
CLIENTS: Final = ("kubectl", "helm")
_CONFIG: Final = Path(__file__).with_name("cluster.yaml")
_API_PORT: Final = 6443
_DEADLINE: Final = "180s"
_MARKS: Final = "•✓✗ "


def create(place: Place, progress: Progress) -> None:
    """Make the cluster; nothing of it is there yet.

    Raises:
        ClusterError: a step failed; the message carries what it said.
    """
    if Docker().answers():
        _on_found_engine(place, progress)
    else:
        _on_own_engine(place, progress)
    with progress.step("DNS of the cluster"):
        until = ("--for=condition=Available", f"--timeout={_DEADLINE}")
        run([*place.kubectl, "--namespace=kube-system", "wait", "deployment/coredns", *until])
    place.ready_mark.touch()


def clients_found() -> bool:
    """Whether the person has kubectl and helm."""
    return all(which(client) for client in CLIENTS)


def _on_found_engine(place: Place, progress: Progress) -> None:
    """Make what everybody gets from kind: its published node image unless another one is named, its defaults."""
    kind = tools.installed_or_built(progress)
    binaries = None if clients_found() else ensure_binaries(progress)
    place.folder.mkdir(parents=True, mode=0o700)
    place.kind_program.symlink_to(kind)
    if binaries is None:
        place.binaries.mkdir()
        for client in CLIENTS:
            (place.binaries / client).symlink_to(which(client) or client)
    else:
        place.binaries.symlink_to(binaries.folder)
    image = os.environ.get(IMAGE_VARIABLE)
    _kind_create(place, progress, *([f"--image={image}"] if image else []))


def _on_own_engine(place: Place, progress: Progress) -> None:
    """Bring along everything that could not be fetched, and offer the API server's port outside."""
    packages.ensure(own_engine.REQUIREMENTS, progress)
    binaries = ensure_binaries(progress)
    kind = tools.built(progress)
    root = ensure_node_root(binaries, progress)
    engine = place.own_engine
    place.folder.mkdir(parents=True, mode=0o700)
    engine.start(progress)
    place.kind_program.symlink_to(kind)
    place.binaries.symlink_to(binaries.folder)
    image = engine.import_node(root, progress)
    _kind_create(place, progress, f"--image={image}", f"--config={_CONFIG}")
    port = open_port(engine.supervisor, "forwarder", "127.0.0.1", _API_PORT)
    run([*place.kubectl, "config", "set-cluster", f"kind-{place.name}", f"--server=https://127.0.0.1:{port}"])


def _kind_create(place: Place, progress: Progress, *options: str) -> None:
    """Run `kind create cluster`, which says on standard error what it is at.

    Raises:
        ClusterError: it failed; what it left is there to look at until the next `up` or `down`.
    """
    argv = [
        *(str(place.kind_program), "create", "cluster", f"--name={place.name}", f"--kubeconfig={place.kubeconfig}"),
        *("--retain", f"--wait={_DEADLINE}"),
        *options,
    ]
    said = []
    with progress.step("kind create cluster") as step, _reading_stderr(argv, place.docker.environment) as process:
        for line in process.stderr or ():
            said.append(line)
            step.note(line.strip(_MARKS).strip())
        if process.wait():
            raise failure(argv, process.returncode, "".join(said))
        step.result("")


def _reading_stderr(argv: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        argv,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
