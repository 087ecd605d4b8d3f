"""The command line: verbs, help, version, and how an error is told."""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from moorage_cli import crd
from moorage_cli.errors import CommandError

_VERBS = (crd,)
"""Each module has `add_to(verbs)`, which declares its arguments and the function that runs it."""

_EPILOG = """\
the first steps:
  kubectl apply -f examples/quickstart.yaml           serve a small real model
  kubectl get llmdeployments                          what is served, and what it waits for
  kubectl explain llmdeployment.spec.model            what each field means
  %(prog)s VERB --help                                more about one verb
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status: 0 done, 1 not done (the reason is on stderr), 2 wrong usage."""
    parser = _parser(Path(sys.argv[0]).name)
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
    except CommandError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return status


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kubectl moor" if program == "kubectl-moor" else "moor",
        description="Moorage serves large language models on Kubernetes from one object, the LLMDeployment.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('moorage')}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for verb in _VERBS:
        verb.add_to(verbs)
    return parser
