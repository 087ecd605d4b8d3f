"""The controller of LeaderWorkerSets: compiled from its Go module, installed by the chart that comes with that."""

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from e2e.cluster.command import run, which
from e2e.cluster.images import program
from e2e.cluster.images.layout import Layout
from e2e.cluster.progress import Progress
from e2e.cluster.provider import ClusterError, Image
from e2e.stack import CommandError, Stack
from e2e.waiting import eventually

KIND: Final = "leaderworkersets.leaderworkerset.x-k8s.io"
_SOURCE: Final = Path(__file__).parent
_MODULE: Final = "sigs.k8s.io/lws"
_GO: Final = ("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w")
_NAMESPACE: Final = "lws-system"
_TAG_LENGTH: Final = 12
_VALUES: Final = {
    "image.manager.pullPolicy": "Never",
    "resources.requests.cpu": "50m",
    "resources.requests.memory": "128Mi",
}
_TRIED: Final = {
    "apiVersion": "leaderworkerset.x-k8s.io/v1",
    "kind": "LeaderWorkerSet",
    "metadata": {"name": "tried", "namespace": "default"},
    "spec": {"leaderWorkerTemplate": {"workerTemplate": {"spec": {"containers": [{"name": "tried"}]}}}},
}


@contextmanager
def installed(stack: Stack) -> Iterator[None]:
    """Let the cluster have LeaderWorkerSets for as long as the context lasts; those that are there go with it.

    Raises:
        ClusterError: Go is missing, the build fails, or the controller does not start.
    """
    image = _image(Progress())
    stack.cluster.load_images([image], Progress())
    repository, tag = image.reference.rsplit(":", 1)
    values = {**_VALUES, "image.manager.repository": repository, "image.manager.tag": tag}
    chart = Path(run(["go", "list", "-m", "-f", "{{.Dir}}", _MODULE], cwd=_SOURCE).strip()) / "charts" / "lws"
    where = f"--namespace={_NAMESPACE}"
    settings = [f"--set-string={name}={value}" for name, value in values.items()]
    try:
        stack.helm("upgrade", "--install", "lws", str(chart), where, "--create-namespace", "--wait", *settings)
        try:
            eventually(lambda: _refused(stack), lambda words: not words, 60)
            yield
        finally:  # while their webhooks and their controller answer
            stack.kubectl("delete", KIND, "--all", "--all-namespaces")
    finally:
        stack.helm("uninstall", "lws", where, "--ignore-not-found", "--wait")
        stack.kubectl("delete", "namespace", _NAMESPACE, "--ignore-not-found", "--timeout=60s")


def _refused(stack: Stack) -> str:
    """Why none could be made now; nothing once one could: its webhooks listen only after it says that it is ready."""
    try:
        stack.kubectl("create", "--dry-run=server", "--filename=-", stdin=json.dumps(_TRIED))
    except CommandError as error:
        return str(error)
    return ""


def _image(progress: Progress) -> Image:
    digest = hashlib.sha256(repr(_GO).encode())
    for name in ("go.mod", "go.sum"):
        digest.update((_SOURCE / name).read_bytes())
    tag = digest.hexdigest()[:_TAG_LENGTH]
    return program.ensure(f"lws:{tag}", "the controller of LeaderWorkerSets, two minutes", _build, progress)


def _build(layout: Layout, reference: str) -> None:
    if not which(_GO[0]):
        raise ClusterError(
            "The controller of LeaderWorkerSets is built with Go 1.24 or newer (https://go.dev/doc/install)"
        )
    with tempfile.TemporaryDirectory() as folder:
        manager = Path(folder) / "manager"  # by which name the chart starts it
        run([*_GO, "-o", manager, f"{_MODULE}/cmd"], cwd=_SOURCE, env={"CGO_ENABLED": "0"})
        layout.add_program(reference, manager)
