"""The one binary that is Kubernetes, its clients, etcd, CoreDNS and Helm: built from Go modules once, then cached."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from e2e.cluster.command import failure, lock, run, which
from e2e.cluster.paths import cache_dir
from e2e.cluster.progress import Progress, Step
from e2e.cluster.provider import ClusterError

SOURCE: Final = Path(__file__).parent / "hyperkube"
_SOURCES: Final = ("go.mod", "go.sum", "main.go", "pause/main.go")
_COMPONENTS: Final = (
    "coredns",
    "etcd",
    "helm",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubeadm",
    "kubectl",
    "kubelet",
)
_VERSION_PACKAGE: Final = "k8s.io/component-base/version"
_HASH_LENGTH: Final = 12


@dataclass(frozen=True)
class Binaries:
    """A folder with `hyperkube`, a link to it by the name of each component, and `pause`."""

    folder: Path

    @property
    def hyperkube(self) -> Path:
        """The binary itself."""
        return self.folder / "hyperkube"

    def __getitem__(self, component: str) -> str:
        """Return the path by which a component is called: `binaries["kubectl"]`."""
        return str(self.folder / component)


def kubernetes_version() -> str:
    """Return the version that go.mod pins, as `v1.34.4`."""
    found = re.search(r"^\s*k8s\.io/kubernetes (v\S+)$", (SOURCE / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise ClusterError(f"{SOURCE / 'go.mod'} does not name k8s.io/kubernetes")
    return found[1]


def obstacle() -> str | None:
    """Say what is missing to have the binary, if anything is."""
    if which("go") or _cached():
        return None
    return "Go 1.24 or newer is needed to build Kubernetes (https://go.dev/doc/install)"


def ensure_binaries(progress: Progress) -> Binaries:
    """Return the binaries, building them when no cached build is the same.

    The first build takes five to ten minutes on two cores. When it is interrupted the next one goes on where it
    stopped, because Go keeps each compiled package in a cache of its own.

    Raises:
        ClusterError: Go is missing, or the build fails.
    """
    if (message := obstacle()) is not None:
        raise ClusterError(message)
    if cached := _cached():
        return cached
    with lock(_root() / ".lock", progress, "the Kubernetes binary"):
        return _cached() or _build(progress)


def _root() -> Path:
    return cache_dir() / "hyperkube"


def _cached() -> Binaries | None:
    """Find a finished build of these sources: by this machine's Go or, where there is none any more, by any."""
    pattern = f"{_source_hash()}-{_go_version() if which('go') else '*'}"
    found = sorted(_root().glob(pattern))
    return Binaries(found[0]) if found else None


def _source_hash() -> str:
    digest = hashlib.sha256("\0".join(_build_flags()).encode())
    for name in _SOURCES:
        digest.update(hashlib.sha256((SOURCE / name).read_bytes()).digest())
    return digest.hexdigest()[:_HASH_LENGTH]


def _go_version() -> str:
    # In the module's folder: its go.mod may ask for a newer toolchain than the installed one.
    return "-".join(run(["go", "env", "GOVERSION", "GOOS", "GOARCH"], cwd=SOURCE).split())


def _build_flags() -> list[str]:
    version = kubernetes_version()
    major, minor = version.removeprefix("v").split(".")[:2]
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    link = " ".join(["-s -w", *(f"-X {_VERSION_PACKAGE}.{name}={value}" for name, value in values.items())])
    return ["-trimpath", "-buildvcs=false", "-ldflags", link]


def _build(progress: Progress) -> Binaries:
    final = _root() / f"{_source_hash()}-{_go_version()}"
    for leftover in _root().glob(".build-*"):  # of builds that were killed: the lock says that none goes on
        shutil.rmtree(leftover)
    unfinished = Path(tempfile.mkdtemp(prefix=".build-", dir=_root()))
    try:
        with progress.step(f"build Kubernetes {kubernetes_version()} (once; 5 to 10 minutes on two cores)") as step:
            _go_build(unfinished, step)
        for component in _COMPONENTS:
            (unfinished / component).symlink_to("hyperkube")
        unfinished.chmod(0o755)
        unfinished.rename(final)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return Binaries(final)


def _go_build(target: Path, step: Step) -> None:
    """Compile into `target`; `-v` names each package as it is compiled, which is all the progress that Go offers."""
    argv = ["go", "build", "-v", *_build_flags(), "-o", f"{target}/", ".", "./pause"]
    packages = 0
    said = []
    with subprocess.Popen(
        argv,
        cwd=SOURCE,
        env={**os.environ, "CGO_ENABLED": "0"},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stderr or ():
            said.append(line)
            if line.startswith("go: downloading"):
                step.note(f"downloading {line.split()[2]}")
            else:
                packages += 1
                step.note(f"{packages} packages, {line.strip()}")
    if process.returncode:
        raise failure(argv, process.returncode, "".join(said))
    step.result(f"{packages} packages compiled")
