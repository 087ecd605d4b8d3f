"""File systems made of Debian packages, where no image can be pulled."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from e2e.cluster.command import run

# mmdebstrap mounts into the new root, and hangs up its whole process group when it fails. Namespaces and a session of
# its own make the mounts go with it, however it ends, and keep the signal from the person's shell; it ends with us.
_TIED: Final = (
    *("setpriv", "--pdeathsig=KILL", "--"),
    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
    *("setsid", "--wait"),
)


def mmdebstrap(*arguments: str, target: Path, env: Mapping[str, str] | None = None) -> None:
    """Write a tar of a file system with packages in it; what is unfinished lies in the same folder.

    Args:
        arguments: Options of mmdebstrap, and the name of the Debian release.
        target: The file to write.
        env: Variables for the hooks.

    Raises:
        ClusterError: the packages cannot be had or installed.
    """
    run([*_TIED, "mmdebstrap", *arguments, target], env={"TMPDIR": str(target.parent), **(env or {})})
