"""How a verb is declared on the command line."""

import argparse
from typing import TYPE_CHECKING

from moorage_cli.cluster import cluster_flags

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - argparse gives it no public name


def add_verb(
    verbs: "Verbs", name: str, summary: str, description: str, epilog: str | None = None
) -> argparse.ArgumentParser:
    """A verb that works on a cluster, whose flags come with it. Description and epilog keep their lines as they are."""
    return verbs.add_parser(
        name,
        help=summary,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[cluster_flags()],
    )
