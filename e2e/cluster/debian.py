"""File systems made of Debian packages, where no image can be pulled."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from e2e.cluster.command import run

SUITE: Final = "bookworm"

# mmdebstrap mounts into the new root, and hangs up its whole process group when it fails. Namespaces and a session of
# its own make the mounts go with it, however it ends, and keep the signal from the person's shell; it ends with us.
_TIED: Final = (
    *("setpriv", "--pdeathsig=KILL", "--"),
    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
    *("setsid", "--wait"),
)


def make_root(
    target: Path,
    packages: Sequence[str],
    *options: str,
    variant: str = "minbase",
    env: Mapping[str, str] | None = None,
) -> None:
    """Write a tar of a file system with packages in it; what is unfinished lies beside it.

    Args:
        target: The file to write.
        packages: Names of Debian packages.
        options: More options of mmdebstrap.
        variant: `minbase` is a Debian in which they are installed, `extract` is only their unpacked files.
        env: Variables for the hooks.

    Raises:
        ClusterError: the packages cannot be had or installed.
    """
    run(
        [*_TIED, "mmdebstrap", f"--variant={variant}", f"--include={','.join(packages)}", *options, SUITE, target],
        env={"TMPDIR": str(target.parent), **(env or {})},
    )
