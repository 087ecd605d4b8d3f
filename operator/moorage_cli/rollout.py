"""`moor rollout`: watch a rollout, and say what shall become of it.

Every verb but `status` writes the annotation `moorage.dev/action`, never spec: so Git stays the source of spec, and
Argo CD has nothing to put back.
"""

import argparse
import secrets
import shutil
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from moorage_api import names
from moorage_cli import progress, watching
from moorage_cli.cluster import LLMDEPLOYMENTS, Cluster, cluster_flags
from moorage_cli.errors import CommandError
from moorage_cli.paint import Paint, print_lines
from moorage_operator.manifest import Manifest, dig
from moorage_operator.plan.actions import VERBS

if TYPE_CHECKING:
    from moorage_cli.verbs import Verbs

_HELP: Final = {
    "promote": "skip the rest of its steps, holds and gates",
    "abort": "give it up: all requests go back to the stable revision",
    "pause": "stop it where it is",
    "resume": "let it go on",
    "retry": "try the revision that was given up once more",
    "restart": "replace the pods of the serving revision one by one, without a new revision",
}
_EPILOG: Final = """\
exit status of `status`: 0 what spec asks for serves; 1 it was given up or cannot be (the reason is on stderr), or
--timeout is over; 2 wrong usage. Of the others: 0 the operator has acted on it, 1 it has not.
examples:
  %(prog)s status chat                 watch it until it is over
  %(prog)s status chat --no-watch      how it stands now
  %(prog)s promote chat                go on to 100 %% now
"""
_POLL: Final = 0.3


def add_to(verbs: "Verbs") -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "rollout",
        help="watch a rollout; pause, resume, promote, abort, retry it; restart pods",
        description="Watch a rollout, and say what shall become of it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(title="what to do", metavar="WHAT", required=True)
    status = actions.add_parser("status", help="how it goes, until it is over", parents=[cluster_flags()])
    status.add_argument("name", metavar="NAME", help="of the LLMDeployment")
    status.add_argument("--no-watch", action="store_true", help="print how it stands now, and end with 0")
    status.add_argument("--timeout", type=float, metavar="SECONDS", help="stop watching after that; default: never")
    status.set_defaults(run=show)
    for verb in VERBS:
        action = actions.add_parser(verb, help=_HELP[verb], parents=[cluster_flags()])
        action.add_argument("name", metavar="NAME", help="of the LLMDeployment")
        action.add_argument("--revision", type=int, metavar="N", help=f"default: {_default(verb)}")
        action.add_argument(
            "--timeout", type=float, default=15.0, metavar="SECONDS", help="to wait for the operator; 0: do not"
        )
        action.set_defaults(run=act, verb=verb)


def _default(verb: str) -> str:
    if verb == "retry":
        return "the one that was given up"
    return "the stable one" if verb == "restart" else "the one that is being rolled out"


# status


def show(options: argparse.Namespace) -> int:
    """Show how a rollout goes until it is over."""
    cluster = Cluster.of(options)
    if options.no_watch:
        found = cluster.deployment(options.name)
        print_lines(progress.view(found, progress.utc_now(), Paint.on(sys.stdout)))
        return 0
    deadline = None if options.timeout is None else time.monotonic() + options.timeout
    screen: _Screen | _Log = _Screen() if sys.stdout.isatty() else _Log()
    with closing(_until(watching.changes(cluster, options.name), deadline)) as objects:
        for deployment in objects:
            screen.draw(deployment)
            stands = progress.outcome(deployment)
            if stands.done is not None:
                return _ended(stands)
    raise CommandError(f"{options.name} is not there yet after {options.timeout:g} s; {stands}")


def _until(objects: Iterator[dict[str, Any] | None], deadline: float | None) -> Generator[dict[str, Any], None, None]:
    """The object at each change and each tick, until the deadline."""
    known: dict[str, Any] | None = None
    for changed in objects:
        known = changed or known
        if known is not None:
            yield known
        if deadline is not None and known is not None and time.monotonic() >= deadline:
            return


def _ended(stands: progress.Outcome) -> int:
    if stands.done:
        return 0
    raise CommandError(str(stands))


class _Log:
    """Not a terminal: a line for each thing that is new."""

    def __init__(self) -> None:
        self._last = ""

    def draw(self, deployment: Manifest) -> None:
        line = progress.summary(deployment)
        if line != self._last:
            print_lines([line])
        self._last = line


class _Screen:
    """A terminal: the same lines, drawn anew in their place."""

    def __init__(self) -> None:
        self._paint = Paint.on(sys.stdout)
        self._drawn = 0

    def draw(self, deployment: Manifest) -> None:
        columns = shutil.get_terminal_size().columns
        lines = progress.view(deployment, progress.utc_now(), self._paint, columns)
        away = f"\x1b[{self._drawn}F\x1b[J" if self._drawn else ""  # to the first line, and away with what was
        picture = "".join(f"{line}\n" for line in lines)
        # A line longer than the terminal must not wrap: then there would be more of them than were counted.
        sys.stdout.write(f"{away}\x1b[?7l{picture}\x1b[?7h")
        sys.stdout.flush()
        self._drawn = len(lines)


# The actions


def act(options: argparse.Namespace) -> int:
    """Write the action, and wait until the operator has acted on it."""
    cluster = Cluster.of(options)
    number = options.revision or revision_for(options.verb, cluster.deployment(options.name))
    nonce = f"{progress.utc_now():%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
    action = f"{options.verb}/r{number}/{nonce}"
    annotation = f"{names.ACTION_ANNOTATION}={action}"
    cluster.run("annotate", LLMDEPLOYMENTS, options.name, annotation, "--overwrite", "--field-manager=moor")
    if options.timeout:
        _acknowledged(cluster, options.name, action, options.timeout)
    print(f"{options.name}: {options.verb} of revision {number}{'' if options.timeout else ' asked for'}")
    return 0


def revision_for(verb: str, deployment: Manifest) -> int:
    """The revision that a person means who names none.

    Raises:
        CommandError: there is none of that kind, or the action could have no effect.
    """
    name = dig(deployment, "metadata", "name")
    stable, candidate = (dig(deployment, "status", "revision", kind) for kind in ("stable", "candidate"))
    if verb == "restart":
        return _there(stable, f"no revision of {name} serves yet, so there is nothing to restart")
    if verb == "retry":
        rows = dig(deployment, "status", "revisions", default=[])
        failed = max((row["number"] for row in rows if row.get("role") == "failed"), default=None)
        return _there(failed, f"no revision of {name} was given up; `moor history {name}` lists them all")
    if verb == "resume" and dig(deployment, "spec", "rollout", "paused"):
        raise CommandError(f"spec.rollout.paused of {name} is true; set it to false where the object comes from")
    under_way = candidate if stable is not None else None
    return _there(under_way, f"no rollout of {name} is under way; `moor rollout status {name}` says what is")


def _there(number: int | None, otherwise: str) -> int:
    if number is None:
        raise CommandError(otherwise)
    return number


def _acknowledged(cluster: Cluster, name: str, action: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while dig(cluster.deployment(name), "status", "rollout", "lastAction") != action:
        if time.monotonic() >= deadline:
            raise CommandError(
                f"written, but the operator has not acted on it within {timeout:g} s; `moor doctor` finds out why"
            )
        time.sleep(_POLL)
