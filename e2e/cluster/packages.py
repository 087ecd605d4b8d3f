"""Programs of the distribution that the tool runs: found, or installed where apt-get and root make that possible."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from e2e.cluster.command import lock, run, which
from e2e.cluster.paths import cache_dir
from e2e.cluster.progress import Progress
from e2e.cluster.provider import ClusterError

CNI_FOLDERS: Final = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
_FOLDERS: Final = (*CNI_FOLDERS, Path("/usr/lib/podman"), Path("/usr/libexec/podman"))
"""Where programs lie that only other programs run."""

_OTHERS_SECONDS: Final = 300
"""How long apt-get waits for somebody else's dpkg, such as the upgrades that Debian runs by itself."""


@dataclass(frozen=True)
class Requirement:
    """Something that must be on the machine, and the Debian package that brings it."""

    package: str
    program: str

    def present(self) -> bool:
        """Whether it is there."""
        return which(self.program) is not None or any((folder / self.program).exists() for folder in _FOLDERS)


NODE: Final = (
    Requirement("containerd", "containerd"),
    Requirement("runc", "runc"),
    # Not its plugin `bridge`: iproute2 has a program of that name.
    Requirement("containernetworking-plugins", "host-local"),
    Requirement("conntrack", "conntrack"),
    Requirement("ethtool", "ethtool"),
    Requirement("iproute2", "ip"),
    Requirement("iptables", "iptables"),
    Requirement("openssl", "openssl"),
    Requirement("util-linux", "nsenter"),
)
IMAGES: Final = (
    Requirement("buildah", "buildah"),
    Requirement("mmdebstrap", "mmdebstrap"),
    # With an empty store buildah asks for it before it does anything, and its package only recommends it.
    Requirement("netavark", "netavark"),
)


def missing(requirements: Sequence[Requirement]) -> list[str]:
    """Return the packages that have to be installed."""
    return [requirement.package for requirement in requirements if not requirement.present()]


def obstacle(requirements: Sequence[Requirement]) -> str | None:
    """Say what a person has to install first, if this tool cannot do it."""
    packages = missing(requirements)
    if not packages or (which("apt-get") and os.geteuid() == 0):
        return None
    return f"these packages are needed, please install them: {' '.join(packages)}"


def ensure(requirements: Sequence[Requirement], progress: Progress) -> None:
    """Install what is missing.

    Raises:
        ClusterError: it cannot be installed from here, or apt-get fails.
    """
    if (message := obstacle(requirements)) is not None:
        raise ClusterError(message)
    if not missing(requirements):
        return
    # Of two that run at once apt-get ends one, and takes what the other has fetched away before it is unpacked.
    with lock(cache_dir() / ".packages.lock", progress, "packages"):
        packages = missing(requirements)
        if packages:
            with progress.step(f"install {' '.join(packages)}"):
                _install(packages)
    if still := missing(requirements):
        raise ClusterError(
            f"apt-get installed {' '.join(still)}, but the programs that they should bring are not there"
        )


def _install(packages: Sequence[str]) -> None:
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends"]
    install += [f"--option=DPkg::Lock::Timeout={_OTHERS_SECONDS}", *packages]
    try:
        run(install, env=quiet)
    except ClusterError:  # a machine without package lists, or with old ones
        run(["apt-get", "update", "--quiet"], env=quiet)
        run(install, env=quiet)
