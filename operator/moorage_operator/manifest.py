"""Kubernetes objects as they come from the API server and go to it: plain mappings, and how to read them.

Generated models would cost memory and start-up time and would drop fields that they do not know. Nothing here changes
an object.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from moorage_api import names

Manifest: TypeAlias = Mapping[str, Any]

STATEFUL_SET: Final = "StatefulSet"
LEADER_WORKER_SET: Final = "LeaderWorkerSet"
GROUP_KINDS: Final = (STATEFUL_SET, LEADER_WORKER_SET)
"""Workloads of which one is the pods of one replica; the latter only where the cluster has that kind."""

KINDS: Final = (
    "ControllerRevision",
    "Deployment",
    *GROUP_KINDS,
    "Service",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "HorizontalPodAutoscaler",
    "Pod",
)
"""The kinds of a deployment's children, in the order in which they are made."""

WORKLOADS: Final = frozenset({"Deployment", *GROUP_KINDS})
"""Those that run replicas."""

_ENDED: Final = frozenset({"Failed", "Succeeded"})

MAPS: Final = (dict, Mapping)
"""For `isinstance`: objects are dicts, and whether something is a Mapping of another kind takes long to find out."""


@dataclass(frozen=True, order=True)
class Key:
    """Which LLMDeployment: what the work queue holds and what a child's label points at."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """`namespace/name`, as kubectl and logs write it."""
        return f"{self.namespace}/{self.name}"


def dig(manifest: Manifest | None, *path: str, default: Any = None) -> Any:
    """The value at `path`, or `default` where any part of the way is absent or null."""
    value: Any = manifest
    for part in path:
        if value is None or not isinstance(value, MAPS):
            return default
        value = value.get(part)
    return default if value is None else value


def kind_of(manifest: Manifest) -> str:
    """The kind, such as `Deployment`."""
    return str(manifest["kind"])


def name_of(manifest: Manifest) -> str:
    """The object's own name."""
    return str(manifest["metadata"]["name"])


def namespace_of(manifest: Manifest) -> str:
    """The object's namespace; empty for objects that have none."""
    return str(dig(manifest, "metadata", "namespace", default=""))


def uid_of(manifest: Manifest) -> str:
    """The identity that a re-created object of the same name does not share."""
    return str(dig(manifest, "metadata", "uid", default=""))


def version_of(manifest: Manifest) -> int:
    """The resourceVersion as a number: they are ordered within one kind (KEP-5504)."""
    return int(dig(manifest, "metadata", "resourceVersion", default="0"))


def label_of(manifest: Manifest, label: str) -> str:
    """A label's value; empty when it is absent."""
    return str(dig(manifest, "metadata", "labels", label, default=""))


def revision_of(manifest: Manifest) -> int:
    """The revision that a record, workload or pod belongs to; 0 when its label is absent or damaged."""
    return number_of(manifest, names.REVISION_LABEL) or 0


def number_of(manifest: Manifest, label: str) -> int | None:
    """The number that a label holds; None when it is absent or damaged."""
    value = label_of(manifest, label)
    return int(value) if value.isascii() and value.isdigit() else None


def controller_uid(manifest: Manifest) -> str:
    """The uid of the controlling owner; empty when nothing controls the object."""
    owners = dig(manifest, "metadata", "ownerReferences", default=())
    return next((str(owner["uid"]) for owner in owners if owner.get("controller")), "")


def owners_of_replicas(manifest: Manifest) -> tuple[Manifest, ...]:
    """Of managedFields those entries that have spec.replicas; of what is kept slim no others are left, without why."""
    entries = dig(manifest, "metadata", "managedFields", default=())
    return tuple(
        one for one in entries if "fieldsV1" not in one or dig(one, "fieldsV1", "f:spec", "f:replicas") is not None
    )


def key_of(manifest: Manifest) -> Key:
    """The LLMDeployment that an object is, or that its label names."""
    own = manifest.get("kind") == names.KIND
    return Key(namespace_of(manifest), name_of(manifest) if own else label_of(manifest, names.DEPLOYMENT_LABEL))


def is_deleting(manifest: Manifest) -> bool:
    """Whether the object has been told to go."""
    return dig(manifest, "metadata", "deletionTimestamp") is not None


def has_ended(pod: Manifest) -> bool:
    """Whether a pod runs no more and never will again, as evicted ones."""
    return dig(pod, "status", "phase") in _ENDED
