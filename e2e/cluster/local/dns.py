"""Names of Services: CoreDNS as a process on the node's address, behind a Service without a selector."""

import json
import sys
from typing import Any, Final

from e2e.cluster.binary import Binaries
from e2e.cluster.local.netns import NODE_ADDRESS
from e2e.cluster.local.node import DNS_ADDRESS
from e2e.cluster.local.place import Place

USER: Final = "system:coredns"
_READY: Final = "127.0.0.1:8181"
_PORTS: Final = (
    {"name": "dns", "port": 53, "protocol": "UDP"},
    {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
)
_COREFILE: Final = f"""\
.:53 {{
    bind {NODE_ADDRESS}
    errors
    ready {_READY}
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {{$KUBECONFIG}}
        pods insecure
        ttl 2
    }}
    cache 2
}}
"""


def command(place: Place, binaries: Binaries) -> list[str]:
    """Write the configuration of CoreDNS and return its command; it reads KUBECONFIG."""
    path = place.folder / "Corefile"
    path.write_text(_COREFILE)
    return [binaries["coredns"], "-conf", str(path)]


def ready_command() -> list[str]:
    """Return a command that succeeds once CoreDNS answers; to be run in the cluster's network."""
    ask = f"import urllib.request; urllib.request.urlopen('http://{_READY}/ready', timeout=2)"
    return [sys.executable, "-I", "-S", "-c", ask]


def manifests() -> str:
    """Return the Service, the slice that leads it to the process, and what the process may read."""
    items = [_service(), _endpoints(), _role(), _binding()]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def _service() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system"},
        "spec": {"clusterIP": DNS_ADDRESS, "ports": list(_PORTS)},
    }


def _endpoints() -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kube-dns-node",
            "namespace": "kube-system",
            "labels": {"kubernetes.io/service-name": "kube-dns"},
        },
        "addressType": "IPv4",
        "ports": list(_PORTS),
        "endpoints": [{"addresses": [NODE_ADDRESS], "conditions": {"ready": True}}],
    }


def _role() -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": USER},
        "rules": [
            {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        ],
    }


def _binding() -> dict[str, Any]:
    group = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": USER},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": USER},
        "subjects": [{"apiGroup": group, "kind": "User", "name": USER}],
    }
