"""The one JSON object by which a container tells Kubernetes why it ended."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import orjson

# The kubelet keeps 4,096 bytes of a termination message, and JSON that is cut is none.
_MAX_BYTES = 4096


def add_flag(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Declare `--termination-log`."""
    parser.add_argument(
        "--termination-log",
        type=Path,
        default=Path("/dev/termination-log"),
        metavar="FILE",
        help="where Kubernetes reads how the container ended; written if it exists (default: %(default)s)",
    )


def report_failure(path: Path, program: str, reason: str, message: str) -> None:
    """Say on standard error, and in the termination message where there is one, why this process ends."""
    print(f"{program}: {reason}: {message}", file=sys.stderr, flush=True)  # noqa: T201 - a program's last words
    while len(orjson.dumps(said := {"error": message, "reason": reason})) > _MAX_BYTES:
        message = message[: len(message) * 9 // 10]
    write(path, said)


def write(path: Path, message: Mapping[str, object]) -> None:
    """Write the termination message; outside of Kubernetes there is no such file."""
    if path.exists() and not path.is_dir():
        path.write_bytes(orjson.dumps(message))
