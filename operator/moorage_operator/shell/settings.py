"""What the operator is told from outside, in one frozen value: flags, and an environment variable for each."""

import argparse
import socket
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from moorage_api import names
from moorage_operator.render.context import Context

_EPILOG: Final = """\
Every flag has an environment variable: --runtime-image is MOORAGE_RUNTIME_IMAGE, and so on; a flag counts more.

The API server is found by the pod's service account, or outside of a cluster by KUBECONFIG.

Try it against the cluster of your kubeconfig (the resource definition must be there: kubectl apply -f crds/):
  moorage-operator --runtime-image=moorage/runtime:0.1.0 --namespace=default

HTTP:  /healthz  fails when nothing was heard from the API server for 180 s
       /readyz   fails until the cluster has been read once
       /metrics  Prometheus, with controller-runtime's names
Ends with 0 when it was told to (SIGTERM, SIGINT), and with 1 when it lost the lead or broke down: start it again."""

_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")


@dataclass(frozen=True)
class Settings:
    """How this process runs."""

    runtime_image: str
    gateway_url: str
    namespace: str
    """Where the operator itself lives, and its Lease."""
    gateway_namespace: str
    """Where the gateways' pods are; empty: there are none."""
    watch_namespace: str | None
    """The only namespace that is looked after; None: all."""
    identity: str
    lease_name: str
    port: int
    workers: int
    resync_seconds: float
    log_level: str

    @property
    def context(self) -> Context:
        """The part that manifests depend on."""
        return Context(runtime_image=self.runtime_image, gateway_url=self.gateway_url)


def read_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Settings from flags, then environment, then defaults.

    Raises:
        SystemExit: a flag is wrong, or help was asked for.
    """
    parser = _parser(environment)
    values = parser.parse_args(arguments)
    if values.watch_namespace not in ("", values.namespace):
        # Elsewhere its renewals, the heartbeat behind /healthz, would not be heard.
        parser.error(f"--watch-namespace must be the Lease's own: --namespace={values.watch_namespace}")
    return Settings(
        runtime_image=values.runtime_image,
        gateway_url=values.gateway_url,
        namespace=values.namespace,
        gateway_namespace=values.gateway_namespace,
        watch_namespace=values.watch_namespace or None,
        identity=values.identity,
        lease_name=values.lease_name,
        port=values.port,
        workers=values.workers,
        resync_seconds=values.resync_seconds,
        log_level=values.log_level,
    )


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="moorage-operator",
        description="Makes and keeps what LLMDeployments ask for: revisions, workloads, Services, status.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def add(flag: str, default: str | None, text: str, kind: Callable[[str], object] = str) -> None:
        given = environment.get("MOORAGE_" + flag.removeprefix("--").replace("-", "_").upper(), default)
        shown = f" (now: {given})" if given else ""
        parser.add_argument(flag, default=given, required=given is None, type=kind, help=text + shown)

    add("--runtime-image", None, "the engine's image where a resource names none; pinned into each revision")
    add("--gateway-url", "http://moorage-gateway.moorage-system/v1", "base URL of the gateway, for status.url")
    add("--namespace", "moorage-system", "the namespace of the operator and of its Lease")
    add(
        "--gateway-namespace",
        "",
        f"where the gateways' pods are, known by {names.NAME_LABEL}={names.GATEWAY}: a rollout waits until they "
        "know of its replicas, and is judged by what they measure; empty: there are none, and ready replicas count",
    )
    add("--watch-namespace", "", "look after this namespace only, which must be --namespace; empty: all of them")
    add("--identity", _unique_name(), "the name in the Lease; must differ between operators")
    add("--lease-name", "moorage-operator", "the Lease that decides which operator leads")
    add("--port", "8080", "of /healthz, /readyz and /metrics", int)
    add("--workers", "16", "deployments that are worked on at the same time", int)
    add("--resync-seconds", "300", "how often everything is read and looked at again", float)
    add("--log-level", "INFO", "how much to say: " + ", ".join(_LEVELS), _level)
    return parser


def _level(text: str) -> str:
    """A log level. A `type` and not `choices`, which argparse does not hold a default (our environment) against.

    Raises:
        argparse.ArgumentTypeError: there is no such level; argparse makes a usage error of it.
    """
    if text not in _LEVELS:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(_LEVELS)}")
    return text


def _unique_name() -> str:
    """The host's name, for people, and what sets two operators on one host apart, as client-go's leaders do."""
    return f"{socket.gethostname()}_{uuid.uuid4()}"
