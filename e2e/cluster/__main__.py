"""The door for people: `python -m e2e.cluster VERB`, run from the root of the repository."""

import argparse
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Final, get_args

from e2e.cluster.binary import ensure_binaries
from e2e.cluster.choose import choose, every_cluster
from e2e.cluster.images import build
from e2e.cluster.progress import Progress
from e2e.cluster.provider import DEFAULT_NAME, ClusterError, Provider, ProviderName

_INTERRUPTED: Final = 130


def main(argv: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on, or `down` to remove what there is", file=sys.stderr)
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--name", default=DEFAULT_NAME, help="the cluster's name (default: %(default)s)")
    common.add_argument("--provider", choices=get_args(ProviderName), help="default: what works on this machine")
    parser = argparse.ArgumentParser(prog="python -m e2e.cluster", description="A real Kubernetes for demo and tests.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, command: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text, description=text, parents=[common])
        added.set_defaults(command=command)
        return added

    verb("up", _up, "bring the cluster up, or repair it")
    verb("down", _down, "remove the cluster and everything that it started")
    verb("list", _list, "list every cluster of this machine")
    verb("status", _status, "say how the cluster is; exit code 0 when it is up")
    images = verb("images", _images, "build the images that changed")
    images.add_argument("--json", action="store_true", help="print {name: reference}")
    verb("load", _load, "build the images that changed and load them into the cluster")
    verb("env", _env, "print the line that points a shell's kubectl and helm to the cluster")
    verb("shell", _shell, "open a shell in the cluster's network, where Services have their addresses")
    verb("logs", _logs, "print where the logs of the cluster's own parts are")
    verb("binary", _binary, "build the Kubernetes binary, if need be, and print its path")
    forward = verb("forward", _forward, "offer a Service on a port of this machine until ctrl-C")
    forward.add_argument("service", help="NAMESPACE/NAME")
    forward.add_argument("port", type=int)
    for tool in ("kubectl", "helm"):
        passed = verb(tool, _tool(tool), f"run {tool} against the cluster: put its arguments behind --")
        passed.add_argument("arguments", nargs=argparse.REMAINDER)
    return parser


def _provider(arguments: argparse.Namespace) -> Provider:
    return choose(arguments.name, arguments.provider)


def _up(arguments: argparse.Namespace) -> int:
    _provider(arguments).up(Progress())
    return 0


def _down(arguments: argparse.Namespace) -> int:
    _provider(arguments).down(Progress())
    return 0


def _list(_: argparse.Namespace) -> int:
    for provider in every_cluster():
        status = provider.status()
        print(f"{status.name:<20} {status.provider:<6} {status.state:<8} {status.reason}")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    status = _provider(arguments).status()
    print(f"{status.name} ({status.provider}): {status.state}, {status.reason}")
    return 0 if status.state == "running" else 1


def _images(arguments: argparse.Namespace) -> int:
    images = build.build_all(build.options_for(_provider(arguments)), Progress())
    references = {name: image.reference for name, image in images.items()}
    print(json.dumps(references) if arguments.json else "\n".join(references.values()))
    return 0


def _load(arguments: argparse.Namespace) -> int:
    provider, progress = _provider(arguments), Progress()
    images = build.build_all(build.options_for(provider), progress)
    provider.load_images(list(images.values()), progress)
    return 0


def _env(arguments: argparse.Namespace) -> int:
    values = _environment(_provider(arguments))
    print("export " + " ".join(f"{name}={shlex.quote(value)}" for name, value in values.items()))
    return 0


def _shell(arguments: argparse.Namespace) -> int:
    provider = _provider(arguments)
    shell = provider.inside([os.environ.get("SHELL", "/bin/sh")])
    os.execvpe(shell[0], shell, {**os.environ, **_environment(provider)})


def _logs(arguments: argparse.Namespace) -> int:
    for path in _provider(arguments).logs():
        print(path)
    return 0


def _binary(_: argparse.Namespace) -> int:
    print(ensure_binaries(Progress()).hyperkube)
    return 0


def _forward(arguments: argparse.Namespace) -> int:
    namespace, _, service = arguments.service.rpartition("/")
    with _provider(arguments).forward(namespace or "default", service, arguments.port) as endpoint:
        print(endpoint.url, flush=True)
        while True:
            signal.pause()


def _tool(tool: str) -> Callable[[argparse.Namespace], int]:
    def command(arguments: argparse.Namespace) -> int:
        provider = _provider(arguments)
        passed = arguments.arguments[1:] if arguments.arguments[:1] == ["--"] else arguments.arguments
        os.execve(provider.binaries / tool, [tool, *passed], {**os.environ, **_environment(provider)})

    return command


def _environment(provider: Provider) -> dict[str, str]:
    if not provider.kubeconfig.exists():
        raise ClusterError(f"The cluster {provider.name} is not up; run `up` first")
    path = os.pathsep.join([str(provider.binaries), os.environ.get("PATH", os.defpath)])
    return {"KUBECONFIG": str(provider.kubeconfig), "PATH": path}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
