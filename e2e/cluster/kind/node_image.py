"""The node image for a machine that can pull none: a Debian with the binary that the `local` provider runs as well.

kubeadm starts the control plane as pods of well-known images. Here all of them are one image, the binary beside the
few programs that kube-proxy calls, under every name that kubeadm asks for.
"""

import hashlib
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from e2e.cluster.binary import Binaries, kubernetes_version
from e2e.cluster.command import lock, run
from e2e.cluster.debian import mmdebstrap
from e2e.cluster.kind import docker_archive, tools
from e2e.cluster.paths import cache_dir
from e2e.cluster.progress import Progress

REPOSITORY: Final = "moorage/kind-node"
IMPORT_CHANGES: Final = ('ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]', "ENV container=docker")
"""What `docker import` cannot read from a tar; as in kind's Dockerfile."""

_SUITE: Final = "bookworm"
_NODE_SCRIPT: Final = Path(__file__).parent / "node_root.sh"
_NODE_PACKAGES: Final = (
    *("systemd", "dbus", "kmod", "procps", "ca-certificates"),
    *("containerd", "runc", "containernetworking-plugins"),
    *("conntrack", "ethtool", "iproute2", "iptables", "nftables"),  # for kubelet, kube-proxy and the plugins
    *("curl", "e2fsprogs", "jq", "pigz"),  # called by kind's scripts and by kubeadm's checks
)
# Half of all files, and nobody reads them on a node: each one is written and deleted again with every cluster.
_EXCLUDED: Final = tuple(
    f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "info", "lintian", "locale", "man", "zoneinfo")
)
_PROXY_PACKAGES: Final = ("conntrack", "iptables", "kmod", "nftables")
_COMPONENTS: Final = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler")
_IPTABLES: Final = tuple(
    f"{family}{verb}" for family in ("iptables", "ip6tables") for verb in ("", "-save", "-restore")
)
_PATH: Final = "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_UNFINISHED: Final = ".build-"
_HASH_LENGTH: Final = 12


def ensure_node_root(binaries: Binaries, progress: Progress) -> Path:
    """Return the node's file system as a tar for `docker import`, making it when it is not cached (40 s).

    Its name, without the suffix, is a hash of what went in.

    Raises:
        ClusterError: the packages cannot be had.
    """
    final = cache_dir() / f"kind-{tools.VERSION}" / f"node-{_inputs_hash(binaries)}.tar"
    with lock(final.parent / ".lock", progress, "kind's node image"):
        if not final.exists():
            _build(final, binaries, progress)
    return final


def _inputs_hash(binaries: Binaries) -> str:
    digest = hashlib.sha256(binaries.folder.name.encode())
    for path in (_NODE_SCRIPT, Path(__file__), Path(docker_archive.__file__), Path(tools.__file__)):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:_HASH_LENGTH]


def _build(final: Path, binaries: Binaries, progress: Progress) -> None:
    for left in final.parent.glob(f"{_UNFINISHED}*"):  # by a build that was killed
        shutil.rmtree(left)
    version = kubernetes_version()
    with tempfile.TemporaryDirectory(dir=final.parent, prefix=_UNFINISHED) as name:
        work = Path(name)
        with progress.step(f"images of the Kubernetes {version} components (once)"):
            pause = _component_images(work, binaries, version)
        with progress.step("node image: Debian with Kubernetes in it (once; about 30 s)"):
            unfinished = work / "node.tar"
            mmdebstrap(
                "--variant=minbase",
                f"--include={','.join(_NODE_PACKAGES)}",
                *_EXCLUDED,
                f'--customize-hook=bash {_NODE_SCRIPT} "$1"',
                _SUITE,
                target=unfinished,
                env={
                    "KIND_FILES": str(tools.node_files()),
                    "HYPERKUBE": str(binaries.hyperkube),
                    "IMAGES": str(work / "images"),
                    "PAUSE": pause,
                    "VERSION": version,
                },
            )
            unfinished.rename(final)


def _component_images(work: Path, binaries: Binaries, version: str) -> str:
    """Write the archives into `work/images`; return the name of the pause image in them."""
    names = run([binaries["kubeadm"], "config", "images", "list", "--kubernetes-version", version]).split()
    pause = next(name for name in names if "/pause:" in name)
    names.remove(pause)
    folder = work / "images"
    folder.mkdir()
    layer = work / "layer.tar"
    _components_layer(layer, binaries)
    # `command` of the other pods names their component; CoreDNS' pod relies on the image to do so.
    docker_archive.write(folder / "components.tar", layer, names, {"Entrypoint": ["/coredns"], "Env": [_PATH]})
    with tarfile.open(layer, "w") as tar:
        tar.add(binaries["pause"], "pause")
    docker_archive.write(folder / "pause.tar", layer, [pause], {"Entrypoint": ["/pause"]})
    return pause


def _components_layer(layer: Path, binaries: Binaries) -> None:
    """Unpacked packages only, no installed Debian: 27 MB beside the binary instead of 130."""
    mmdebstrap("--variant=extract", f"--include={','.join(_PROXY_PACKAGES)}", _SUITE, target=layer)
    with tarfile.open(layer, "a") as tar:
        tar.add(binaries.hyperkube, "usr/local/bin/hyperkube")
        for component in _COMPONENTS:
            _link(tar, f"usr/local/bin/{component}", "hyperkube")
        _link(tar, "coredns", "usr/local/bin/hyperkube")
        for program in _IPTABLES:  # links that an installed package would have made
            _link(tar, f"usr/sbin/{program}", "xtables-nft-multi")


def _link(tar: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type = tarfile.SYMTYPE
    entry.linkname = target
    tar.addfile(entry)
