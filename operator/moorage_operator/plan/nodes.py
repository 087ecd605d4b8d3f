"""Nodes: what each has, how much of that is free, and whether a pod fits there.

The scheduler decides where pods go. This is for people, who want to know why one has no node, and whether another would
have one: resources, labels and taints are judged as the scheduler does; pod affinity and volumes are left to it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Final, TypeAlias

from moorage_api import names
from moorage_api.quantity import quantity_value
from moorage_operator.manifest import MAPS, Manifest, dig, has_ended, label_of, name_of, uid_of
from moorage_operator.render.accelerator import MEMORY_LABEL, PRODUCT_LABEL

Amounts: TypeAlias = Mapping[str, Decimal]
"""Of resources by their names, such as `cpu` in cores, `memory` in bytes, `nvidia.com/gpu` in pieces."""

_REPELLING: Final = frozenset({"NoSchedule", "NoExecute"})
_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
_NOTHING: Final = Decimal(0)
_INTEGER: Final = re.compile("[+-]?[0-9]{1,18}")
"""Any of 64 bits that a person would write."""

NAMED: Final = 4
"""Nodes that a message names at most."""
PLACED: Final = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"
"""The pods that `used` looks at, as a field selector: what has no node, or has ended, need not be read."""


@dataclass(frozen=True)
class Node:
    """One node, as far as it matters to whether a pod fits."""

    name: str
    labels: Mapping[str, str]
    taints: tuple[Manifest, ...]
    """Those that keep pods away."""
    allocatable: Amounts
    free: Amounts

    @property
    def product(self) -> str:
        """Which accelerators it has; empty where nobody labelled it."""
        return self.labels.get(PRODUCT_LABEL, "")

    @property
    def device_memory(self) -> int | None:
        """MiB of one accelerator."""
        text = self.labels.get(MEMORY_LABEL, "")
        return int(text) if text.isdecimal() else None


@dataclass(frozen=True)
class Nodes:
    """All nodes; `unknown` says why nothing is known of them."""

    there: tuple[Node, ...] = ()
    unknown: str = ""
    again: bool = False
    """They could not be read this time, and will be read again."""
    places: Mapping[str, str] = field(default_factory=dict)
    """The node of each replica's pod, by its uid."""

    def would_run(self, spec: Manifest) -> bool:
        """Whether one of them would run such a pod if it were empty; True where nobody may look."""
        return not self.again and (not self.there or any(not misfit(one, spec) for one in self.there))

    def would_replace(self, spec: Manifest, other: Manifest, uids: Iterable[str]) -> bool:
        """Whether one of them has room for a pod once another one has gone, whichever that is.

        Args:
            spec: of the pod.
            other: of those of which one goes.
            uids: theirs. Where one of them is may not be known: then it leaves room if any node would do.
        """
        if not self.would_run(spec):
            return False
        left = {**asked(other), "pods": Decimal(1)}
        by_name = {one.name: one for one in self.there}
        homes = {self.places[uid] for uid in uids if uid in self.places} & by_name.keys()
        emptier = (replace(by_name[name], free=added(by_name[name].free, left)) for name in homes)
        return any(room(one, spec) for one in self.there) or all(room(one, spec) for one in emptier)


def nodes(listed: Iterable[Manifest], used: Mapping[str, Amounts]) -> tuple[Node, ...]:
    """Read nodes as the API server lists them, of which pods have `used` so much."""
    return tuple(sorted((_node(one, used.get(name_of(one), {})) for one in listed), key=lambda node: node.name))


def used(pods: Iterable[Manifest]) -> dict[str, dict[str, Decimal]]:
    """What pods take of each node: what they have asked for, for as long as they have not ended."""
    found: dict[str, dict[str, Decimal]] = {}
    for pod in pods:
        node = dig(pod, "spec", "nodeName")
        if node is not None and not has_ended(pod):
            found[node] = added(found.get(node, {}), {**asked(pod["spec"]), "pods": Decimal(1)})
    return found


def places(pods: Iterable[Manifest]) -> dict[str, str]:
    """The nodes of the replicas' pods among these, by their uids."""
    ours = (pod for pod in pods if label_of(pod, names.DEPLOYMENT_LABEL))
    return {uid_of(pod): node for pod in ours if (node := dig(pod, "spec", "nodeName")) is not None}


def asked(spec: Manifest) -> dict[str, Decimal]:
    """What a pod asks of its node: its containers together, or its largest init container where that is more.

    Init containers that go on running beside the others (sidecars, KEP-753) count with both.
    """
    sidecars, largest = dict[str, Decimal](), dict[str, Decimal]()
    for container in spec.get("initContainers", ()):
        wanted = _requests(container)
        if container.get("restartPolicy") == "Always":
            sidecars = added(sidecars, wanted)
            wanted = {}
        largest = _larger(largest, added(sidecars, wanted))
    together = sidecars
    for container in spec.get("containers", ()):
        together = added(together, _requests(container))
    return added(_larger(together, largest), _amounts(spec.get("overhead") or {}))


def misfit(node: Node, spec: Manifest) -> str:
    """Why a pod would never run on a node, were that empty; nothing when it would."""
    if not _tolerated(node, spec.get("tolerations", ())):
        return "its taints"
    if not _selected(node, spec):
        return "its labels"
    return _short(asked(spec), node.allocatable)


def room(node: Node, spec: Manifest) -> int:
    """How many more pods fit on a node."""
    if misfit(node, spec):
        return 0
    wanted = {**asked(spec), "pods": Decimal(1)}
    return max(0, min(int(node.free.get(name, _NOTHING) // amount) for name, amount in wanted.items() if amount))


def lacking(node: Node, spec: Manifest) -> str:
    """Which resource a node has too little of for one more pod; nothing when one more fits."""
    return _short({**asked(spec), "pods": Decimal(1)}, node.free)


def added(one: Amounts, other: Amounts) -> dict[str, Decimal]:
    """The sum of two."""
    return {name: one.get(name, _NOTHING) + other.get(name, _NOTHING) for name in {**one, **other}}


def _node(manifest: Manifest, taken: Amounts) -> Node:
    allocatable = _amounts(dig(manifest, "status", "allocatable", default={}))
    taints = dig(manifest, "spec", "taints", default=())
    return Node(
        name=name_of(manifest),
        labels=dig(manifest, "metadata", "labels", default={}),
        taints=tuple(taint for taint in taints if taint.get("effect") in _REPELLING),
        allocatable=allocatable,
        free={name: amount - taken.get(name, _NOTHING) for name, amount in allocatable.items()},
    )


def _requests(container: Manifest) -> dict[str, Decimal]:
    """What a container asks for; its limits where it says no more, as the API server has it."""
    resources = container.get("resources") or {}
    return _amounts({**(resources.get("limits") or {}), **(resources.get("requests") or {})})


def _amounts(raw: Mapping[str, Any]) -> dict[str, Decimal]:
    """Without what is written in a form that nothing of ours has, such as `1e3`."""
    found = {}
    for name, amount in raw.items():
        try:
            found[name] = quantity_value(str(amount))
        except ValueError:
            continue
    return found


def _larger(one: Amounts, other: Amounts) -> dict[str, Decimal]:
    return {name: max(one.get(name, _NOTHING), other.get(name, _NOTHING)) for name in {**one, **other}}


def _short(wanted: Amounts, there: Amounts) -> str:
    return next((name for name, amount in sorted(wanted.items()) if amount > there.get(name, _NOTHING)), "")


def _tolerated(node: Node, tolerations: Iterable[Manifest]) -> bool:
    tolerations = tuple(tolerations)
    return all(any(_tolerates(one, taint) for one in tolerations) for taint in node.taints)


def _tolerates(toleration: Manifest, taint: Manifest) -> bool:
    """Source: https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/."""
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    return toleration.get("key") == taint["key"] and (toleration.get("value") or "") == (taint.get("value") or "")


def _selected(node: Node, spec: Manifest) -> bool:
    wanted = (spec.get("nodeSelector") or {}).items()
    terms = dig(spec, "affinity", "nodeAffinity", _REQUIRED, "nodeSelectorTerms")
    return wanted <= node.labels.items() and (terms is None or any(_matches(node, term) for term in _maps(terms)))


def _matches(node: Node, term: Manifest) -> bool:
    """A term without any expression selects no node."""
    by_label, by_field = _maps(term.get("matchExpressions")), _maps(term.get("matchFields"))
    named = {"metadata.name": node.name}
    holds = (*(_holds(node.labels, one) for one in by_label), *(_holds(named, one) for one in by_field))
    return bool(holds) and all(holds)


def _maps(raw: object) -> tuple[Manifest, ...]:
    """What a person wrote there may be anything: of a spec that was never applied, no API server has seen it."""
    return tuple(one for one in raw if isinstance(one, MAPS)) if isinstance(raw, list | tuple) else ()


def _holds(labels: Mapping[str, str], expression: Manifest) -> bool:
    """Source: https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#operators.

    What cannot be read selects no node, as in the scheduler.
    """
    value = labels.get(str(expression.get("key")))
    raw = expression.get("values")
    values = tuple(map(str, raw)) if isinstance(raw, list | tuple) else ()
    judged: dict[str, Callable[[], bool]] = {
        "In": lambda: value in values,
        "NotIn": lambda: value not in values,
        "Exists": lambda: value is not None,
        "DoesNotExist": lambda: value is None,
        "Gt": lambda: _exceeds(value, *values),
        "Lt": lambda: _exceeds(*values, value),
    }
    return judged.get(str(expression.get("operator")), lambda: False)()


def _exceeds(*numbers: str | None) -> bool:
    """Whether the first of two whole numbers is greater; not where they are no such, or not two."""
    match numbers:
        case (str(one), str(other)) if _INTEGER.fullmatch(one) and _INTEGER.fullmatch(other):
            return int(one) > int(other)
        case _:
            return False
