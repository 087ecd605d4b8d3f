"""The page docs/cli.md, from the parser that answers `--help`: `python -m moorage_cli.reference > docs/cli.md`.

Not the text of `--help` itself, whose layout differs between versions of Python.
"""

import argparse
import sys
from collections.abc import Iterator
from typing import Final

from moorage_cli.cluster import FLAGS
from moorage_cli.main import parser

_UNTOLD: Final = frozenset({"help", *FLAGS})
"""What every verb has."""
_HEAD = """\
<!-- Made by `make crd` from the command line's own parser. Change that, not this file. -->
# moor

`moor`, also `kubectl moor`, is what a person does with Moorage from a terminal. `pip install '.[cli]'` in a checkout
puts both into PATH. It asks the API server through `kubectl`, so it needs that, and takes the same kubeconfig, contexts
and logins: every verb but `crd` has `-n`/`--namespace`, `--context` and `--kubeconfig`. Colours and live pictures
appear on a terminal only, and without `NO_COLOR`; elsewhere it prints plain lines.

Exit status: 0 done; 1 not done, with the reason and the next step on one line of stderr; 2 wrong usage; 130 Ctrl-C.
`moor rollout status` ends with 0 once what spec asks for serves, and with 1 once it was given up or cannot be.
"""


def cli_reference() -> str:
    """The page."""
    return _HEAD + "".join(_verbs(parser()))


def _verbs(above: argparse.ArgumentParser) -> Iterator[str]:
    for action in above._actions:  # noqa: SLF001 - argparse has no other way to ask
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
            said = {choice.dest: choice.help for choice in action._choices_actions}  # noqa: SLF001 - as above
            for name, verb in action.choices.items():
                yield from _verb(verb, said[name] or "")


def _verb(verb: argparse.ArgumentParser, said: str) -> Iterator[str]:
    if verb._subparsers is not None:  # noqa: SLF001 - as above
        yield from _verbs(verb)
        return
    yield f"\n## {verb.prog}\n\n{_sentence(verb.description or said)}\n"
    rows = [_row(action, verb.prog) for action in verb._actions if action.dest not in _UNTOLD]  # noqa: SLF001 - as above
    if rows:
        yield "\n| argument | |\n|---|---|\n" + "".join(rows)


def _row(action: argparse.Action, program: str) -> str:
    takes = "" if action.nargs == 0 else str(action.metavar or action.dest.upper())
    flags = ", ".join(action.option_strings)
    shown = f"{flags} {takes}".strip()
    words = (action.help or "") % {"default": action.default, "prog": program}
    return f"| `{shown}` | {words} |\n"


def _sentence(words: str) -> str:
    words = words.strip()
    return words if words.endswith((".", "`")) or "\n" in words else f"{words[0].upper()}{words[1:]}."


if __name__ == "__main__":
    sys.stdout.write(cli_reference())
