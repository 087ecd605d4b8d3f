"""The kinds that the operator reads and writes, and where the API server keeps them."""

from dataclasses import dataclass
from typing import Final

from moorage_api import names
from moorage_operator.manifest import Manifest, kind_of, name_of, namespace_of


@dataclass(frozen=True)
class Resource:
    """One kind: `path` is the part of its address before the namespace, `plural` the part after it."""

    kind: str
    api_version: str
    plural: str
    selector: str = f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY}"
    """Which objects of the kind are watched and listed: those with our label, so that memory holds nobody else's."""

    @property
    def full_name(self) -> str:
        """By which kubectl knows it, as `statefulsets.apps`."""
        group, _, _ = self.api_version.rpartition("/")
        return f"{self.plural}.{group}" if group else self.plural

    def path(self, namespace: str | None, name: str | None = None) -> str:
        """The address of an object, of its kind in a namespace, or (`None`) of its kind in all namespaces."""
        root = "/apis" if "/" in self.api_version else "/api"
        parts = [root, self.api_version]
        if namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name:
            parts.append(name)
        return "/".join(parts)


DEPLOYMENTS: Final = Resource(names.KIND, names.API_VERSION, names.PLURAL, selector="")
PODS: Final = Resource("Pod", "v1", "pods")
CHILDREN: Final = (
    Resource("ControllerRevision", "apps/v1", "controllerrevisions"),
    Resource("Deployment", "apps/v1", "deployments"),
    Resource("StatefulSet", "apps/v1", "statefulsets"),
    Resource("Service", "v1", "services"),
    Resource("NetworkPolicy", "networking.k8s.io/v1", "networkpolicies"),
    Resource("PodDisruptionBudget", "policy/v1", "poddisruptionbudgets"),
    Resource("HorizontalPodAutoscaler", "autoscaling/v2", "horizontalpodautoscalers"),
    PODS,
)
LEADER_WORKER_SETS: Final = Resource("LeaderWorkerSet", "leaderworkerset.x-k8s.io/v1", "leaderworkersets")
"""A child, too, where the cluster has them. Source: https://lws.sigs.k8s.io/docs/reference/leaderworkerset.v1/"""
LEASES: Final = Resource("Lease", "coordination.k8s.io/v1", "leases", selector="")
GATEWAYS: Final = Resource("Pod", "v1", "pods", selector=f"{names.NAME_LABEL}={names.GATEWAY}")
"""The gateways' own pods, which the chart makes and nothing of ours changes."""
API_SERVICES: Final = Resource("APIService", "apiregistration.k8s.io/v1", "apiservices", selector="")
CLUSTER_ROLES: Final = Resource("ClusterRole", "rbac.authorization.k8s.io/v1", "clusterroles", selector="")
NODES: Final = Resource("Node", "v1", "nodes", selector="")
ALL_PODS: Final = Resource("Pod", "v1", "pods", selector="")
EVENTS: Final = Resource("Event", "v1", "events", selector="")

WATCHED: Final = (DEPLOYMENTS, *CHILDREN)
_BY_KIND: Final = {resource.kind: resource for resource in (*WATCHED, LEADER_WORKER_SETS)}


def address(manifest: Manifest) -> str:
    """Where `manifest` lives on the API server.

    Raises:
        KeyError: the operator has no business with that kind.
    """
    return _BY_KIND[kind_of(manifest)].path(namespace_of(manifest), name_of(manifest))
