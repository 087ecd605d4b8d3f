"""`moorage-fetch resolve SOURCE`: what a source is at this moment, so that all replicas get the same files.

It brings no files. The answer goes to the termination message and to standard output: the `source`, with a commit in
place of a branch and with the version of a Python package; the `digest` of the files, where they could be read for it;
and their `bytes`.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import orjson

from moorage_runtime import termination
from moorage_runtime.fetch import hub, python_package, volume
from moorage_runtime.fetch.digest import digest_file, digest_model
from moorage_runtime.fetch.errors import FetchError, FetchFailedError
from moorage_runtime.fetch.source import HubSource, PythonSource, VolumeSource, parse_source

_PROGRAM = "moorage-fetch resolve"
Answer = dict[str, str | int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        found = resolve(options.source, options.sources)
    except FetchError as error:
        termination.report_failure(options.termination_log, _PROGRAM, error.reason, str(error))
        return 1
    termination.write(options.termination_log, found)
    print(orjson.dumps(found).decode())  # noqa: T201 - its result
    return 0


def resolve(text: str, sources: Path = volume.SOURCES) -> Answer:
    """Look a source up; `sources` is where claims are mounted.

    Raises:
        FetchError: it names nothing that exists, or its place cannot be asked.
    """
    source = parse_source(text)
    try:
        match source:
            case HubSource():
                return _on_hub(source)
            case PythonSource():
                return _in_package(source)
            case VolumeSource():
                return _on_volume(text, source, sources)
    except OSError as error:
        raise FetchFailedError(f"{text} could not be looked up: {error}") from error


def _on_hub(source: HubSource) -> Answer:
    with tempfile.TemporaryDirectory() as home:
        commit, size = hub.look_up(source, Path(home))
    return {"source": pinned(source, commit), "bytes": size}


def _in_package(source: PythonSource) -> Answer:
    with tempfile.TemporaryDirectory() as work:
        found = python_package.look_up(source, Path(work))
    return {"source": f"python://{source.name}=={found.version}", "digest": found.digest, "bytes": found.size}


def _on_volume(text: str, source: VolumeSource, sources: Path) -> Answer:
    files = [digest_file(path, name) for name, path in volume.model_files(source, sources).items()]
    return {"source": text, "digest": digest_model(files), "bytes": sum(file.size for file in files)}


def pinned(source: HubSource, commit: str) -> str:
    """The source at exactly that commit."""
    file = f"/{source.file}" if source.file is not None else ""
    return f"hf://{source.repository}{file}@{commit}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM, description="Say what a source is now (commit, version, digest), and how large; fetch nothing."
    )
    parser.add_argument("source", metavar="SOURCE", help="as of moorage-fetch")
    parser.add_argument(
        "--sources",
        type=Path,
        default=volume.SOURCES,
        metavar="DIR",
        help="where claims are mounted (default: %(default)s)",
    )
    termination.add_flag(parser)
    return parser
