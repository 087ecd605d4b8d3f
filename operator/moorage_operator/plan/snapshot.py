"""What a plan is made from, and what it consists of: frozen values, each decision with its reason."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from moorage_operator.manifest import STATEFUL_SET, Manifest, controller_uid, dig, kind_of, name_of, uid_of
from moorage_operator.plan.figures import Gateway
from moorage_operator.plan.metrics_api import MetricsApi
from moorage_operator.plan.nodes import Nodes

_OF_A_POD: Final = re.compile("-r[0-9]+-resolve")
"""What follows the object's name in that of the only pods that are made by name; a workload's pods have random ones."""
_OF_OTHERS: Final = re.compile("(-r[0-9]+(-[0-9]+)?|-ranks)?")
AUTOSCALER: Final = "HorizontalPodAutoscaler"
"""What serves does so without one: what is in its way is told by ScalingActive, and holds up nothing else."""


@dataclass(frozen=True)
class Snapshot:
    """One LLMDeployment and its children, as the operator knows them at one moment."""

    deployment: Manifest
    children: Mapping[str, tuple[Manifest, ...]]
    """By kind, each kind sorted by name; objects of other owners with names that we need are among them."""
    now: datetime
    refused: str = ""
    """Why the API server refused the last write, in its own words; empty when it did not."""
    autoscaler_refused: str = ""
    """The same of the autoscaler."""
    gateways: tuple[Gateway, ...] | None = None
    """One for each gateway pod, sorted by name. None: the installation has no gateways, so requests come through the
    Service and a ready pod is a routable one. Empty: there should be some, and none is known."""
    accelerators_short: bool = False
    """Whether a pod of any LLMDeployment of the namespace waits for accelerators."""
    nodes: Nodes | None = None
    """What nodes have; None unless a pod of this object waits for accelerators and they have been listed."""
    metrics: MetricsApi | None = None
    """Whether autoscalers can have our metrics; None: nobody has looked yet."""
    group_kind: str = STATEFUL_SET
    """What a new group of pods is made as."""
    told: Mapping[str, str] = field(default_factory=dict)
    """Why pods are not made, by the uid of their workload: of those whose controller says so in events only."""

    def owned(self, kind: str) -> tuple[Manifest, ...]:
        """The children of that kind that this very object controls."""
        uid = uid_of(self.deployment)
        return tuple(child for child in self.children.get(kind, ()) if controller_uid(child) == uid)

    def owned_pods(self) -> tuple[Manifest, ...]:
        """The pods, known by their labels, since ReplicaSets control them. Older ones are a deleted namesake's."""
        born = dig(self.deployment, "metadata", "creationTimestamp", default="")
        pods = self.children.get("Pod", ())
        there = (pod for pod in pods if dig(pod, "metadata", "creationTimestamp", default=born) >= born)
        return tuple(pod for pod in there if not self._is_foreign(pod))

    def foreign(self) -> tuple[Manifest, ...]:
        """Objects of others that have a name which a child of this object needs to serve."""
        kinds = (kind for kind in self.children if kind != AUTOSCALER)
        return tuple(child for kind in kinds for child in self.children[kind] if self._is_foreign(child))

    @property
    def autoscaler(self) -> Manifest | None:
        """Ours."""
        return next(iter(self.owned(AUTOSCALER)), None)

    @property
    def foreign_autoscaler(self) -> Manifest | None:
        """Somebody else's that has the name of ours."""
        return next((one for one in self.children.get(AUTOSCALER, ()) if self._is_foreign(one)), None)

    def _is_foreign(self, child: Manifest) -> bool:
        own, name = name_of(self.deployment), name_of(child)
        if not name.startswith(own) or controller_uid(child) == uid_of(self.deployment):
            return False
        suffix = _OF_A_POD if kind_of(child) == "Pod" else _OF_OTHERS
        return suffix.fullmatch(name, len(own)) is not None

    def reported(self, *path: str) -> object:
        """A value of the status that was last written; None where there is none."""
        return dig(self.deployment, "status", *path)


@dataclass(frozen=True)
class Apply:
    """This object shall be as in the manifest."""

    manifest: Manifest
    reason: str


@dataclass(frozen=True)
class Delete:
    """This very version of this object shall go."""

    manifest: Manifest
    reason: str


@dataclass(frozen=True)
class Event:
    """Something that a person may want to read afterwards; `kind` is `Normal` or `Warning`."""

    kind: str
    reason: str
    message: str


@dataclass(frozen=True)
class Plan:
    """What to do, in this order: apply, delete, report, tell; and when to look again without being asked."""

    applies: tuple[Apply, ...] = ()
    deletes: tuple[Delete, ...] = ()
    status: Manifest | None = None
    events: tuple[Event, ...] = ()
    requeue_after: float | None = None
    unripe: bool = False
    """What the status tells of is not known completely yet: it may wait a moment."""
    in_the_way: tuple[Manifest, ...] = ()
    """Objects of others with names that we need. No watch tells when they go, so they have to be read anew."""
