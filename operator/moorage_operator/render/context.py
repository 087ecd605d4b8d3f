"""What a manifest depends on besides the revision: the owner, and what the installation fixed."""

from dataclasses import dataclass
from typing import Any

from moorage_api import names
from moorage_operator.manifest import Manifest, name_of, namespace_of, uid_of


@dataclass(frozen=True)
class Context:
    """What the installation says."""

    runtime_image: str
    """The engine's image where the resource names none; it is pinned into each revision when that is made."""
    gateway_url: str
    """Base URL for OpenAI clients inside the cluster."""


@dataclass(frozen=True)
class Owner:
    """The LLMDeployment that a child belongs to."""

    name: str
    namespace: str
    uid: str

    @classmethod
    def of(cls, deployment: Manifest) -> "Owner":
        """The owner's identity from the object."""
        return cls(name_of(deployment), namespace_of(deployment), uid_of(deployment))

    def labels(self, revision: int | None = None) -> dict[str, str]:
        """The labels of every child, and of those that belong to one revision."""
        labels = {names.MANAGED_BY_LABEL: names.MANAGED_BY, names.DEPLOYMENT_LABEL: self.name}
        return labels if revision is None else {**labels, names.REVISION_LABEL: str(revision)}

    def metadata(self, name: str, labels: dict[str, str]) -> dict[str, Any]:
        """A child's metadata: deleted with its owner, and not before its owner when a person waits for the whole."""
        reference = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }
        return {"name": name, "namespace": self.namespace, "labels": labels, "ownerReferences": [reference]}

    def revision_name(self, number: int) -> str:
        """The name of a revision's record and of its workload."""
        return f"{self.name}-r{number}"


@dataclass(frozen=True)
class Resolved:
    """What a movable source, such as a branch, was when its revision was made."""

    source: str
    size: int | None = None
    """Bytes of the model's files, where they are known."""
    digest: str | None = None
    """Of the model's files; None where the source alone pins them."""
