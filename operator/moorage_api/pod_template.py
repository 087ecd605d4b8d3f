"""spec.podTemplate: what may be added to the pods of a replica; a closed set, so that nothing weakens them."""

from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from moorage_api.base import ApiModel
from moorage_api.frozen import FREE, Fragment
from moorage_api.lists import ATOMIC
from moorage_api.rules import Matches, Rule

_Name = Annotated[
    str,
    StringConstraints(max_length=253),
    Matches("[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?", "write the name of an object: lower case letters, digits, `-` and `.`"),
]
_Words = Annotated[dict[str, Annotated[str, StringConstraints(max_length=1024)]], Field(max_length=64), FREE]


class PodMetadata(ApiModel):
    """Labels and annotations of the pods."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.labels) || self.labels.all(key, "
            "!key.startsWith('moorage.dev/') && key != 'app.kubernetes.io/managed-by')",
            "labels under moorage.dev/ and app.kubernetes.io/managed-by are the operator's own; choose another key",
        ),
    )

    labels: _Words | None = None
    """Further labels."""

    annotations: _Words | None = None
    """Further annotations."""


class LocalObjectReference(ApiModel):
    """An object of the same namespace."""

    name: _Name
    """Its name."""


class PodSpec(ApiModel):
    """Where the pods run and how they end."""

    node_selector: _Words | None = None
    """Labels that a node must have."""

    tolerations: Annotated[tuple[Fragment, ...], Field(max_length=32), ATOMIC] = ()
    """Taints of nodes that do not keep the pods away, besides those of accelerators; as in a pod."""

    affinity: Fragment | None = None
    """Nodes and pods to be near or far from; as in a pod. What spec.accelerator asks of a node holds besides."""

    topology_spread_constraints: Annotated[tuple[Fragment, ...], Field(max_length=8), ATOMIC] = ()
    """How replicas spread, as in a pod; without labelSelector they count the replicas of their revision. Default: over
    nodes, where that is possible."""

    priority_class_name: _Name | None = None
    """Which pods go first when nodes are full."""

    scheduler_name: _Name | None = None
    """A scheduler other than the cluster's own."""

    runtime_class_name: _Name | None = None
    """A container runtime other than the node's own."""

    image_pull_secrets: Annotated[tuple[LocalObjectReference, ...], Field(max_length=8), ATOMIC] = ()
    """Secrets with credentials for the engine's image."""

    termination_grace_period_seconds: (
        Annotated[int, Field(ge=1, le=86_400, json_schema_extra={"format": "int64"})] | None
    ) = None
    """Seconds that open answers may go on after a replica was told to end; those that take longer end 10 seconds before
    that with what they have. Below 11 there is no time for it: they break off. Default: 300."""


class PodTemplate(ApiModel):
    """What is added to the pods of every replica."""

    metadata: PodMetadata | None = None
    """Labels and annotations."""

    spec: PodSpec | None = None
    """Placement and end."""
