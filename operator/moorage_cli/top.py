"""`moor top`: what every model does, from the status of its object."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moorage_cli.cluster import LLMDEPLOYMENTS, Cluster, cluster_flags
from moorage_cli.errors import CommandError
from moorage_cli.paint import print_lines, table
from moorage_cli.progress import condition
from moorage_operator.manifest import dig

if TYPE_CHECKING:
    from moorage_cli.verbs import Verbs

_HEAD = (
    "NAMESPACE",
    "NAME",
    "REVISION",
    "READY",
    "GPU%",
    "GPUMEM%",
    "WATTS",
    "TOK/S",
    "RUN",
    "WAIT",
    "STATUS",
    "AS OF",
)


def add_to(verbs: "Verbs") -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "top",
        help="tokens, requests and GPUs of every model",
        description="Tokens, requests and GPUs of every model, as last measured: the operator writes these figures "
        "when they change much, at most once a minute, and AS OF (UTC) says when. Prometheus has the live ones.",
        parents=[cluster_flags()],
    )
    parser.add_argument("-A", "--all-namespaces", action="store_true", help="not only one namespace")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the table."""
    everywhere = ("--all-namespaces",) if options.all_namespaces else ()
    found = Cluster.of(options).read("get", LLMDEPLOYMENTS, *everywhere)["items"]
    if not found:
        raise CommandError("no LLMDeployment here; --all-namespaces looks everywhere")
    print_lines(rows(found))
    return 0


def rows(deployments: Sequence[dict[str, Any]]) -> list[str]:
    """The busiest first; `-` is what nobody has measured."""
    busiest = sorted(deployments, key=lambda one: -dig(one, "status", "traffic", "tokensPerSecond", default=0))
    return table([_HEAD, *(_row(one) for one in busiest)])


def _row(deployment: dict[str, Any]) -> tuple[str, ...]:
    status = deployment.get("status", {})

    def figure(*path: str) -> str:
        return str(dig(status, *path, default="-"))

    return (
        deployment["metadata"]["namespace"],
        deployment["metadata"]["name"],
        figure("revision", "stable"),
        figure("ready"),
        figure("gpu", "utilization"),
        figure("gpu", "memory"),
        figure("gpu", "powerWatts"),
        figure("traffic", "tokensPerSecond"),
        figure("traffic", "running"),
        figure("traffic", "waiting"),
        str(condition(deployment, "Ready").get("reason", "-")),
        figure("measured")[11:19] or "-",
    )
