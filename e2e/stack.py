"""Moorage on a cluster: images built and loaded, the chart installed, and `kubectl` for whoever looks on.

The demo and every end-to-end case stand on this module, so that what the tests install is what the demo shows.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from e2e.cluster.images.build import build_all, options_for
from e2e.cluster.progress import Progress
from e2e.cluster.provider import ClusterError, Provider

ROOT: Final = Path(__file__).resolve().parent.parent
SYSTEM_NAMESPACE: Final = "moorage-system"
GATEWAY_SERVICE: Final = "moorage-gateway"
GATEWAY_PORT: Final = 80


class CommandError(ClusterError):
    """A command ended with an error; the message is what it printed on standard error."""


@dataclass(frozen=True)
class Stack:
    """A cluster with Moorage on it."""

    cluster: Provider

    @property
    def environment(self) -> Mapping[str, str]:
        """What kubectl and helm need to find the cluster; the rest of the environment is kept."""
        path = f"{self.cluster.binaries}{os.pathsep}{os.environ.get('PATH', '')}"
        return {**os.environ, "KUBECONFIG": str(self.cluster.kubeconfig), "PATH": path}

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and return what it printed.

        Raises:
            CommandError: kubectl ended with an error; the message is its own.
        """
        return self._run(["kubectl", *arguments], stdin)

    def helm(self, *arguments: str) -> str:
        """Run helm and return what it printed.

        Raises:
            CommandError: helm ended with an error; the message is its own.
        """
        return self._run(["helm", *arguments], None)

    def moor(self, *arguments: str) -> str:
        """Run this checkout's `moor` and return what it printed.

        Raises:
            CommandError: it did not end with 0; the message is its own.
        """
        return self._run([str(Path(sys.executable).with_name("moor")), *arguments], None)

    def get(self, *arguments: str) -> Any:
        """Return `kubectl get ARGUMENTS` as parsed JSON."""
        return json.loads(self.kubectl("get", *arguments, "--output=json"))

    def namespace(self, name: str) -> None:
        """Make a namespace in which the API server refuses every pod that is not Pod Security "restricted"."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        self.kubectl("apply", "--filename=-", stdin=json.dumps(manifest))

    def _run(self, argv: Sequence[str], stdin: str | None) -> str:
        # The child's PATH finds the program too, hence the absolute path.
        program = str(self.cluster.binaries / argv[0])
        done = subprocess.run(
            [program, *argv[1:]], input=stdin, env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise CommandError(done.stderr.strip() or f"{argv[0]} ended with {done.returncode}")
        return done.stdout


def bring_up(cluster: Provider, progress: Progress) -> Stack:
    """Bring the cluster up, load what the code says now, and install the chart; quick when nothing changed."""
    images = build_all(options_for(cluster), progress)
    cluster.up(progress)
    cluster.load_images(list(images.values()), progress)
    stack = Stack(cluster)
    with progress.step("chart moorage"):
        stack.namespace(SYSTEM_NAMESPACE)
        stack.helm(*_install_arguments({name: image.reference for name, image in images.items()}))
    return stack


def _install_arguments(references: Mapping[str, str]) -> list[str]:
    values = [
        f"--set-string={component}.image.{key}={value}"
        for component, reference in references.items()
        for key, value in zip(("repository", "tag"), reference.rsplit(":", 1), strict=True)
    ]
    return [
        *("upgrade", "--install", "moorage", str(ROOT / "charts" / "moorage")),
        *("--namespace", SYSTEM_NAMESPACE, "--wait", "--timeout=3m"),
        *values,
    ]
