"""An OCI runtime for a machine without CAP_SYS_RESOURCE: takes out of a container what needs it, then becomes runc.

Without that capability runc can neither start a privileged container ("unable to apply caps") nor lower an
out-of-memory score nor raise a limit, and dockerd has no setting for any of these. dockerd calls this file as a
program, so it imports nothing of ours.

Format: https://github.com/opencontainers/runtime-spec/blob/main/config.md
"""

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

_MISSING = "CAP_SYS_RESOURCE"


def trim(process: dict[str, Any]) -> None:
    """Change the `process` object of a runtime specification in place."""
    for names in process.get("capabilities", {}).values():
        names[:] = [name for name in names if name != _MISSING]
    if process.get("oomScoreAdj", 0) < 0:
        process["oomScoreAdj"] = 0
    for limit in process.get("rlimits", []):
        highest = resource.getrlimit(getattr(resource, limit["type"]))[1]
        if highest != resource.RLIM_INFINITY:
            limit["hard"] = min(limit["hard"], highest)
            limit["soft"] = min(limit["soft"], highest)


def main(arguments: list[str]) -> None:
    """Trim the file that runc is about to read, if its verb reads one, and become runc."""
    if {"create", "run"}.intersection(arguments):
        path = Path(_value(arguments, "--bundle"), "config.json")
        spec = json.loads(path.read_text())
        trim(spec["process"])
        path.write_text(json.dumps(spec))
    elif "exec" in arguments:
        path = Path(_value(arguments, "--process"))
        process = json.loads(path.read_text())
        trim(process)
        path.write_text(json.dumps(process))
    os.execvp("runc", ["runc", *arguments])


def _value(arguments: list[str], option: str) -> str:
    """Containerd's shim always gives both options, each as a word of its own."""
    return arguments[arguments.index(option) + 1]


if __name__ == "__main__":
    main(sys.argv[1:])
