"""This machine's pip settings and certificates, for the time of a build: they reach it as secrets and do not stay."""

import ast
import configparser
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from e2e.cluster.command import run

_PASSED_ON: Final = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")
_CA_IN_BUILD: Final = "/run/secrets/ca"


@contextmanager
def secrets() -> Iterator[list[str]]:
    """Return the options that give a build its secrets; docker and buildah spell them alike."""
    found = _settings()
    authority = found.get("cert") or os.environ.get("SSL_CERT_FILE")
    config = configparser.RawConfigParser()
    config["global"] = {key: value for key, value in found.items() if key in _PASSED_ON}
    options = []
    if authority and Path(authority).is_file():
        config["global"]["cert"] = _CA_IN_BUILD
        options.append(f"--secret=id=ca,src={authority}")
    with tempfile.NamedTemporaryFile("w", prefix="moorage-pip-") as file:
        config.write(file)
        file.flush()
        yield [f"--secret=id=pip,src={file.name}", *options]


def _settings() -> dict[str, str]:
    """Ask pip for its settings, from files and environment alike; the last to name a key wins, as in pip itself."""
    lines = run([sys.executable, "-m", "pip", "config", "list"]).splitlines()
    pairs = (line.partition("=") for line in lines)
    return {key.rpartition(".")[2].lower(): ast.literal_eval(value) for key, _, value in pairs}
