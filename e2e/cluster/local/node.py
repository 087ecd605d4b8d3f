"""The node: containerd, kubelet, kube-proxy and the scheduler that fills it."""

import json
from pathlib import Path
from typing import Any, Final

from e2e.cluster.binary import Binaries
from e2e.cluster.command import which
from e2e.cluster.controlplane import POD_RANGE
from e2e.cluster.local.netns import NODE_ADDRESS
from e2e.cluster.local.place import Place
from e2e.cluster.packages import CNI_FOLDERS

PAUSE_IMAGE: Final = "docker.io/moorage/pause:1"
DNS_ADDRESS: Final = "10.96.0.10"
_POD_SUBNET: Final = "10.244.0.0/24"

# Folders whose paths are fixed in containerd, kubelet and the CNI plugins. Each cluster sees its own there, by bind
# mounts in a mount namespace that it does not share with the rest of the machine.
_PRIVATE: Final = (
    "/run/containerd",
    "/run/netns",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
)

_CONTAINERD: Final = """\
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Without CAP_SYS_RESOURCE a process cannot lower its score, and runc dies with "can't get final child's PID".
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{networks}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"""


def containerd_command(place: Place) -> list[str]:
    """Write containerd's configuration and return its command, which makes the private mounts first."""
    networks = place.folder / "cni"
    networks.mkdir()
    (networks / "10-bridge.conflist").write_text(json.dumps(_network()))
    plugins = next(folder for folder in CNI_FOLDERS if (folder / "bridge").exists())
    config = place.folder / "containerd.toml"
    config.write_text(_CONTAINERD.format(pause=PAUSE_IMAGE, plugins=plugins, networks=networks))
    for path in _PRIVATE:
        _private(place, path).mkdir(parents=True)
    mounts = [f'mkdir -p "{path}" && mount --bind "{_private(place, path)}" "{path}"' for path in _PRIVATE]
    script = " && ".join([*mounts, f'exec "{which("containerd")}" --config "{config}"'])
    return ["unshare", "--mount", "--propagation=private", "sh", "-ec", script]


def containerd_socket(place: Place) -> Path:
    """Return containerd's socket as it is seen from outside of its private mounts."""
    return _private(place, "/run/containerd") / "containerd.sock"


def kubelet_command(place: Place, binaries: Binaries, config: Path) -> list[str]:
    """Write kubelet's configuration and return its command, to be run in containerd's mount namespace."""
    (place.folder / "resolv.conf").write_text(f"nameserver {NODE_ADDRESS}\n")
    settings = place.folder / "kubelet.json"
    settings.write_text(json.dumps(_kubelet(place), indent=1))
    return [
        binaries["kubelet"],
        f"--config={settings}",
        f"--kubeconfig={config}",
        f"--hostname-override={place.name}",
        f"--node-ip={NODE_ADDRESS}",
    ]


def proxy_command(place: Place, binaries: Binaries, config: Path) -> list[str]:
    """Return the command of kube-proxy. Limits of connection tracking are the machine's, not a namespace's to set."""
    return [
        binaries["kube-proxy"],
        f"--kubeconfig={config}",
        f"--hostname-override={place.name}",
        f"--cluster-cidr={POD_RANGE}",
        "--proxy-mode=iptables",
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
    ]


def _private(place: Place, path: str) -> Path:
    return place.folder / "private" / path.strip("/").replace("/", "-")


def _network() -> dict[str, Any]:
    address_plan = {
        "type": "host-local",
        "ranges": [[{"subnet": _POD_SUBNET}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,  # a pod may reach itself through its Service
        "ipam": address_plan,
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "moorage", "plugins": [bridge, ports]}


def _kubelet(place: Place) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(place.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(place.pki / "kubelet.crt"),
        "tlsPrivateKeyFile": str(place.pki / "kubelet.key"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{place.cgroup.name}",
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": str(place.folder / "resolv.conf"),
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        # Images are imported and could not be pulled again; a full disk is the person's to look after.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi"},
        "serializeImagePulls": False,
        "volumePluginDir": str(place.folder / "volume-plugins"),
        # Not 10 s, 20 s, 40 s … up to 5 minutes: whoever looks on while a container crashes waits less long here.
        "featureGates": {"KubeletCrashLoopBackOffMax": True},
        "crashLoopBackOff": {"maxContainerRestartPeriod": "3s"},
    }
