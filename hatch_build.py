"""hatchling's build hook: compiles the runtime's C++ library into the wheel, which then is one for this platform.

The operator's and the gateway's images are built from their own folders, where there is nothing to compile; and the
runtime computes without the library, by torch, only slower. So neither missing sources nor a missing compiler is an
error; sources that do not compile are one.
"""

import importlib.util
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_BUILD = Path("runtime/moorage_runtime/kernels/build.py")


class CustomBuildHook(BuildHookInterface):
    """Runs before the wheel's files are collected, for editable installs, too."""

    def initialize(self, _version: str, build_data: dict[str, Any]) -> None:
        """Build the library in place and have it taken along."""
        script = Path(self.root) / _BUILD
        if not script.is_file():
            self.app.display_info("kernels: not part of these sources")
            return
        build = _load(script)
        try:
            build.build()
        except build.NoCompilerError as reason:
            self.app.display_warning(f"kernels: {reason}; the runtime will compute with torch")
            return
        build_data["artifacts"].append(f"/{_BUILD.parent}/{build.LIBRARY.name}")
        build_data["pure_python"] = False
        # ctypes loads it, so any version of Python does.
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


def _load(script: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("moorage_kernels_build", script)
    if spec is None or spec.loader is None:
        raise ImportError(f"{script} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
