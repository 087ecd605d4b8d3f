"""The cluster that a verb works on, asked through `kubectl`.

Through `kubectl` and not through a client library, for three reasons. Whatever a person's kubeconfig holds (a cloud's
exec plugins, OIDC, proxies, impersonation) works here exactly when it works there. `kubectl moor` has it by definition.
And `moor` stays two small packages where the official client alone is 126 MB.
"""

import argparse
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Final

from moorage_api import names
from moorage_cli.errors import CommandError
from moorage_operator.cluster.resources import Resource

LLMDEPLOYMENTS: Final = f"{names.PLURAL}.{names.GROUP}"
"""The kind's full name, since another group may have one of the same short name."""
FLAGS: Final = ("kubeconfig", "context", "namespace")
"""Those of `cluster_flags`."""
_NEXT_STEPS: Final = (
    ("the server doesn't have a resource type", "install Moorage there (README), or name another --context"),
    ("(Forbidden)", "ask whoever runs the cluster for that right; `moor doctor` lists what moor needs"),
    ("(NotFound)", "`moor top --all-namespaces` lists what there is; -n names another namespace"),
    ("was refused", "is the cluster up? --context and KUBECONFIG choose another one"),
    ("does not exist", "`kubectl config get-contexts` lists what there is"),
)
"""A part of what kubectl says -> what a person does next."""


class KubectlError(CommandError):
    """kubectl did not do it; the text is its own, and the next step.

    Attributes:
        said: kubectl's words alone.
    """

    def __init__(self, said: str) -> None:
        step = next((step for part, step in _NEXT_STEPS if part in said), "")
        super().__init__(f"{said}; {step}" if step else said)
        self.said = said


def cluster_flags() -> argparse.ArgumentParser:
    """The flags that choose a cluster and a namespace, as kubectl has them, for a verb's `parents`."""
    flags = argparse.ArgumentParser(add_help=False)
    chosen = flags.add_argument_group("cluster")
    chosen.add_argument("-n", "--namespace", metavar="NAME", help="default: the context's")
    chosen.add_argument("--context", metavar="NAME", help="of the kubeconfig; default: the current one")
    chosen.add_argument("--kubeconfig", metavar="FILE", help="default: $KUBECONFIG, else ~/.kube/config")
    return flags


class Cluster:
    """kubectl with the flags that a person gave."""

    def __init__(self, **flags: str | None) -> None:
        self._flags = flags

    @classmethod
    def of(cls, options: argparse.Namespace) -> "Cluster":
        """The one that the flags of `cluster_flags` choose."""
        return cls(**{name: getattr(options, name) for name in FLAGS})

    def within(self, namespace: str) -> "Cluster":
        """The same in another namespace."""
        return Cluster(**{**self._flags, "namespace": namespace})

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl to its end and return what it prints.

        Raises:
            KubectlError: it failed.
        """
        done = subprocess.run(  # noqa: S603 - a list, no shell; the program is the person's own kubectl
            self._command(arguments), input=stdin, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise KubectlError(_one_line(done.stderr))
        return done.stdout

    def read(self, *arguments: str, stdin: str | None = None) -> Any:
        """Run kubectl and return what it prints as JSON."""
        return json.loads(self.run(*arguments, "--output=json", stdin=stdin))

    def serves(self, resource: Resource) -> bool:
        """Whether the cluster has that kind. Everybody who is known to the API server may ask."""
        try:
            found = json.loads(self.run("get", f"--raw=/apis/{resource.api_version}"))
        except KubectlError as error:
            if "(NotFound)" in error.said:
                return False
            raise
        return any(one["name"] == resource.plural for one in found["resources"])

    def deployment(self, name: str) -> dict[str, Any]:
        """One LLMDeployment as the API server has it."""
        found: dict[str, Any] = self.read("get", LLMDEPLOYMENTS, name)
        return found

    def children(self, name: str, *kinds: str) -> list[dict[str, Any]]:
        """What the operator made for one LLMDeployment, of these kinds."""
        selector = f"--selector={names.DEPLOYMENT_LABEL}={name}"
        items: list[dict[str, Any]] = self.read("get", ",".join(kinds), selector)["items"]
        return items

    @contextmanager
    def stream(self, *arguments: str) -> Iterator[IO[str]]:
        """What kubectl prints while it runs; it is ended with the block.

        Raises:
            KubectlError: it failed by itself before the block ended.
        """
        process = subprocess.Popen(  # noqa: S603 - as above
            self._command(arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        with process:
            if process.stdout is None or process.stderr is None:
                raise RuntimeError("Popen gives what it was asked for")
            try:
                yield process.stdout
                if process.poll():
                    raise KubectlError(_one_line(process.stderr.read()))
            finally:
                process.terminate()

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        kubectl = shutil.which("kubectl")
        if kubectl is None:
            raise CommandError("kubectl is not in PATH, and moor asks the API server through it; install kubectl")
        return [kubectl, *arguments, *(f"--{name}={value}" for name, value in self._flags.items() if value)]


def _one_line(said: str) -> str:
    """The last thing that kubectl said, which is the error; before it come warnings and the tries of its discovery."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else "kubectl failed without a word"
