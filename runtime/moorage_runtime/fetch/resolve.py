"""`moorage-fetch resolve SOURCE`: what a branch or tag is at this moment, so that all replicas get the same files.

It brings no files. The answer, `{"source", "bytes"}`, goes to the termination message and to standard output: the
source with a commit in place of the branch, and the size of the files that would be fetched.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import orjson

from moorage_runtime import termination
from moorage_runtime.fetch import hub
from moorage_runtime.fetch.errors import FetchError, InvalidSourceError
from moorage_runtime.fetch.source import HubSource, parse_source

_PROGRAM = "moorage-fetch resolve"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        found = resolve(options.source)
    except FetchError as error:
        termination.report_failure(options.termination_log, _PROGRAM, error.reason, str(error))
        return 1
    termination.write(options.termination_log, found)
    print(orjson.dumps(found).decode())  # noqa: T201 - its result
    return 0


def resolve(text: str) -> dict[str, object]:
    """Look a source up.

    Raises:
        FetchError: it names nothing that moves or exists, or the hub cannot be asked.
    """
    source = parse_source(text)
    if not isinstance(source, HubSource):
        raise InvalidSourceError(f"'{text}' names no branch or tag; only hf:// sources do.")
    with tempfile.TemporaryDirectory() as home:
        commit, size = hub.look_up(source, Path(home))
    return {"source": pinned(source, commit), "bytes": size}


def pinned(source: HubSource, commit: str) -> str:
    """The source at exactly that commit."""
    file = f"/{source.file}" if source.file is not None else ""
    return f"hf://{source.repository}{file}@{commit}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM, description="Say which commit a source is now, and how large its model; fetch nothing."
    )
    parser.add_argument("source", metavar="SOURCE", help="hf://ORG/NAME[/FILE.gguf][@REVISION]")
    parser.add_argument(
        "--termination-log",
        type=Path,
        default=termination.DEFAULT_PATH,
        metavar="FILE",
        help="where Kubernetes reads how the container ended; written if it exists (default: %(default)s)",
    )
    return parser
