"""The command line: verbs, help, version, and how an error is told."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from moorage_cli import chat, crd, doctor, history, plan, rollback, rollout, top
from moorage_cli.errors import CommandError

_VERBS: Final = (plan, rollout, history, rollback, chat, top, doctor, crd)
"""Each module has `add_to(verbs)`, which declares its arguments and the function that runs it."""

_EPILOG = """\
the first steps:
  kubectl apply -f examples/quickstart.yaml           serve a small real model
  %(prog)s rollout status chat                            watch it come up
  %(prog)s chat chat                                      talk to it
  kubectl explain llmdeployment.spec.model            what each field means
  %(prog)s VERB --help                                    more about one verb

The cluster is asked through kubectl: the same kubeconfig, the same --context, -n and --kubeconfig.
exit status: 0 done; 1 not done, with the reason and the next step on one line of stderr; 2 wrong usage; 130 Ctrl-C
"""
_INTERRUPTED: Final = 130
"""What shells say of a program that Ctrl-C ended."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status: 0 done, 1 not done (the reason is on stderr), 2 wrong usage."""
    options = parser(Path(sys.argv[0]).name).parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except CommandError as error:
        print(f"moor: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # `moor … | head`: who reads has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the flush at the end fails once more
        return 1
    return status


def parser(program: str = "moor") -> argparse.ArgumentParser:
    """Everything that can be asked for.

    Args:
        program: the name that it was started by; kubectl finds plugins by theirs.
    """
    made = argparse.ArgumentParser(
        prog="kubectl moor" if program == "kubectl-moor" else "moor",
        description="Moorage serves large language models on Kubernetes from one object, the LLMDeployment.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"%(prog)s {version('moorage')}")
    verbs = made.add_subparsers(title="verbs", metavar="VERB", required=True)
    for verb in _VERBS:
        verb.add_to(verbs)
    return made
