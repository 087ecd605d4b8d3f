"""Everything about the gateway that a person may set: flags first, then the environment, then the defaults here."""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from moorage_api import names

_ABOUT = """\
The data plane of Moorage: one OpenAI-compatible endpoint for every LLMDeployment.

It watches LLMDeployments and their pods (read only), keeps one route table, and streams each request to the replica
with the least load among those of the revision that the weights pick. With the API server away it goes on with its last
table.

Inside a cluster it uses its pod's service account. Outside of one it uses --kubeconfig, or $KUBECONFIG, or
~/.kube/config:

  moorage-gateway --kubeconfig ~/.kube/config --public-port 8080
  curl localhost:8080/v1/models
  curl localhost:8080/v1/chat/completions -H 'content-type: application/json' \\
       -d '{"model": "chat", "stream": true, "messages": [{"role": "user", "content": "Hello"}]}'

A request for a model that starts, or sleeps, waits for its first replica; a client that streams hears that it waits.

Public port: /v1/models, /v1/chat/completions, /v1/completions.  Internal port: /healthz, /readyz, /metrics,
/telemetry (with ?watch as a stream).  Metrics port, with TLS: custom.metrics.k8s.io for autoscalers.
SIGTERM: answers with `connection: close` for 2 s, then stops accepting, lets open streams end, exits 0.
"""

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@dataclass(frozen=True, slots=True)
class Settings:
    """One value for the whole process; seconds and bytes as their names say."""

    watch_namespace: str = ""
    kubeconfig: Path | None = None
    namespace: str = ""
    pod_name: str = ""
    host: str = "0.0.0.0"  # noqa: S104 - the Service and NetworkPolicies decide who reaches a pod's address
    public_port: int = 8080
    internal_port: int = names.GATEWAY_INTERNAL_PORT
    metrics_port: int = 0
    max_body_bytes: int = 4 * 2**20
    max_header_bytes: int = 32 * 2**10
    client_seconds: float = 30.0
    connect_seconds: float = 1.0
    idle_seconds: float = 600.0
    hold_requests: int = 100
    hold_seconds: float = 50.0
    hold_stream_seconds: float = 600.0
    hold_mib: int = 128
    drain_seconds: int = 300
    log_level: str = "INFO"


def parse(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read flags and environment; prints help or a usage error and exits as command line tools do."""
    values = vars(_parser(environ).parse_args(argv))
    return Settings(**values)


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="moorage-gateway", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    base = Settings()

    def add(flag: str, default: object, kind: Callable[[str], object], text: str) -> None:
        variable = "MOORAGE_" + flag.removeprefix("--").replace("-", "_").upper()
        parser.add_argument(
            flag,
            # A string goes through `type`, so that a bad environment value gets the same usage error as a bad flag.
            default=environ.get(variable) or default,
            type=kind,
            metavar=kind.__name__.strip("_").upper(),
            help=f"{text} [${variable}, default: {default if default not in ('', None) else 'none'}]",
        )

    add("--watch-namespace", base.watch_namespace, str, "only this namespace's models; empty: those of all namespaces")
    add("--kubeconfig", base.kubeconfig, Path, "how to reach the API server from outside of a cluster")
    add(
        "--namespace",
        base.namespace,
        str,
        "where the other gateways are, whose figures count in custom metrics; empty: there are none",
    )
    add("--pod-name", base.pod_name, str, "what its telemetry calls this gateway; empty: as its host is called")
    add("--host", base.host, str, "address to listen on")
    add("--public-port", base.public_port, int, "port for clients")
    add("--internal-port", base.internal_port, int, "port for probes and metrics")
    add(
        "--metrics-port", base.metrics_port, int, "port for custom metrics, which only the API server is given; 0: none"
    )
    add("--max-body-bytes", base.max_body_bytes, int, "a longer request body is refused with 413")
    add("--max-header-bytes", base.max_header_bytes, int, "a longer request head is refused with 431")
    add(
        "--client-seconds",
        base.client_seconds,
        float,
        "a client must have sent its head, and then its body, in this time",
    )
    add("--connect-seconds", base.connect_seconds, float, "a replica must accept a connection in this time")
    add("--idle-seconds", base.idle_seconds, float, "a replica that sends nothing for this long is given up")
    # A request that does not wait wakes nothing.
    add("--hold-requests", base.hold_requests, _count, "so many of a model without a replica may wait for one")
    add("--hold-seconds", base.hold_seconds, _span, "a request that wants its answer whole waits no longer")
    add("--hold-stream-seconds", base.hold_stream_seconds, _span, "one that wants a stream waits no longer")
    add(
        "--hold-mib",
        base.hold_mib,
        _count,
        "memory for all that wait; half of it for the first of each model",
    )
    add("--drain-seconds", base.drain_seconds, int, "how long open streams may run on after SIGTERM")
    add("--log-level", base.log_level, _level, "one of " + ", ".join(_LEVELS))
    return parser


def _count(text: str) -> int:
    """At least one.

    Raises:
        ValueError: it is none.
    """
    if (number := int(text)) < 1:
        raise ValueError
    return number


def _span(text: str) -> float:
    """Seconds, some.

    Raises:
        ValueError: they are none.
    """
    if not (seconds := float(text)) > 0:
        raise ValueError
    return seconds


def _level(text: str) -> str:
    """A log level. A `type` and not `choices`, which argparse does not hold a default (our environment) against.

    Raises:
        argparse.ArgumentTypeError: there is no such level; argparse makes a usage error of it.
    """
    if text not in _LEVELS:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(_LEVELS)}")
    return text
