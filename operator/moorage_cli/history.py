"""`moor history` and `moor diff`: which revisions there are, and what they differ in."""

import argparse
import sys
from typing import TYPE_CHECKING

from moorage_cli.cluster import Cluster, cluster_flags
from moorage_cli.errors import CommandError
from moorage_cli.paint import Paint, coloured_diff, print_lines
from moorage_cli.revisions import difference, history, numbered, revisions_of
from moorage_operator.manifest import dig

if TYPE_CHECKING:
    from moorage_cli.verbs import Verbs


def add_to(verbs: "Verbs") -> None:
    """Declare the verbs."""
    listed = verbs.add_parser("history", help="list the revisions that are remembered", parents=[cluster_flags()])
    listed.add_argument("name", metavar="NAME", help="of the LLMDeployment")
    listed.set_defaults(run=run_history)
    compared = verbs.add_parser(
        "diff", help="what a revision is made of, against the one that serves", parents=[cluster_flags()]
    )
    compared.add_argument("name", metavar="NAME", help="of the LLMDeployment")
    compared.add_argument(
        "--revision", type=int, metavar="N", help="default: the one that is being rolled out, else the newest"
    )
    compared.add_argument("--against", type=int, metavar="N", help="default: the stable one")
    compared.set_defaults(run=run_diff)


def run_history(options: argparse.Namespace) -> int:
    """Print the table."""
    cluster = Cluster.of(options)
    revisions = revisions_of(cluster, cluster.deployment(options.name))
    if not revisions:
        raise CommandError(f"{options.name} has no revision yet; `moor rollout status {options.name}` says why")
    print_lines(history(revisions))
    return 0


def run_diff(options: argparse.Namespace) -> int:
    """Print the difference; nothing where there is none."""
    cluster = Cluster.of(options)
    deployment = cluster.deployment(options.name)
    revisions = revisions_of(cluster, deployment)
    if not revisions:
        raise CommandError(f"{options.name} has no revision yet; `moor rollout status {options.name}` says why")
    pointers = dig(deployment, "status", "revision", default={})
    newest = revisions[-1].number
    after = numbered(revisions, options.revision or pointers.get("candidate") or newest)
    before = numbered(revisions, options.against or pointers.get("stable") or newest)
    print_lines(coloured_diff(difference(before, after), Paint.on(sys.stdout)))
    return 0
