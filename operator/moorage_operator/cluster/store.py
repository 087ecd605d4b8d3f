"""What the operator knows of the cluster: every object that is ours, fed by watches, lists and own writes.

Three things make it safe to decide from memory:

- An older version never replaces a newer one, so events may come late, twice or in any order.
- The answer to each own write goes in at once (`put`, `removed`), so the next decision already sees it: nothing has to
  wait for a watch to bring our own writes back.
- A list corrects it (`merge`): what a watch has missed comes in, and what is gone goes out.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from moorage_api import names
from moorage_operator.cluster.sharing import Sharing
from moorage_operator.cluster.slim import slim
from moorage_operator.manifest import (
    KINDS,
    Key,
    Manifest,
    dig,
    is_deleting,
    key_of,
    kind_of,
    name_of,
    namespace_of,
    uid_of,
    version_of,
)

_Address = tuple[str, str, str]
_Name = TypeVar("_Name")
_Member = TypeVar("_Member")


@dataclass(frozen=True)
class _Grave:
    """What is known of an object that went."""

    version: int
    """Its last known version, or that of its end."""
    below: float
    """Nothing older than this is believed of it any more."""


class Store:
    """Objects by address, and children by the LLMDeployment that their label names."""

    def __init__(self) -> None:
        """Start empty."""
        self._objects: dict[_Address, Manifest] = {}
        self._sharing = Sharing()
        self._family: dict[Key, set[_Address]] = {}
        self._foreign: dict[_Address, Key] = {}
        self._unplaced: dict[str, set[_Address]] = {}  # pods by namespace that no node has room for
        self._keepers: dict[str, set[Key]] = {}  # deployments by namespace that keep replicas warm
        self._complete: dict[str, int] = {}  # the version of the last list of a kind
        self._graves: dict[str, dict[str, _Grave]] = {}  # by kind and uid, until a list of the kind shows as much

    def heard(self, manifest: Manifest) -> bool:
        """Take in what a watch says, as `put`. What went before the last list was made is not brought back by it.

        A watch that begins anew may begin in the past: its list may come from an API server that lags behind.
        """
        unknown = _address(manifest) not in self._objects
        if unknown and version_of(manifest) <= self._complete.get(kind_of(manifest), 0):
            return False
        return self.put(manifest)

    def put(self, manifest: Manifest) -> bool:
        """Take in a version of an object. False when it is no news: not newer, or the same in all that is decided by.

        Controllers tell of each step that they take with a workload, in a status that no decision reads.
        """
        address = _address(manifest)
        known = self._objects.get(address)
        grave = self._graves.get(kind_of(manifest), {}).get(uid_of(manifest))
        if grave is not None and version_of(manifest) < grave.below:
            return False
        if known is not None and version_of(manifest) <= version_of(known):
            return False
        self._drop(address)
        now = self.slim(manifest)
        kept = now if known is None else _reusing(known, now)
        self._keep(address, kept)
        return known is None or _content(known) != _content(kept)

    def slim(self, manifest: Manifest) -> Manifest:
        """What memory is to hold of an object: what it holds already, where that is this version.

        So a list of all that there is takes no more than what has changed since the last one.
        """
        known = self._objects.get(_address(manifest))
        if known is not None and version_of(known) == version_of(manifest):
            return known
        return cast("Manifest", self._sharing.of(slim(manifest)))

    def put_foreign(self, key: Key, manifest: Manifest) -> None:
        """Remember somebody else's object that has a name that `key` needs, so that the plan sees it."""
        address = _address(manifest)
        self._drop(address)  # a watch may have brought it meanwhile, under the deployment that its own label names
        self._foreign[address] = key
        self.put(manifest)

    def remove(self, manifest: Manifest) -> None:
        """The object is gone, as a watch says: deleted, or it lost our label. A newer object of the same name stays."""
        self._bury(manifest, _Grave(version_of(manifest), version_of(manifest)))
        address = _address(manifest)
        known = self._objects.get(address)
        if known is not None and version_of(known) <= version_of(manifest):
            self._drop(address)

    def removed(self, manifest: Manifest) -> None:
        """The object is gone because we deleted it: late events of it are ignored."""
        self._bury(manifest, _Grave(version_of(manifest), math.inf))
        self._drop(_address(manifest))

    def merge(self, kind: str, listed: Iterable[Manifest], version: int) -> tuple[Manifest, ...]:
        """Correct one kind by a list that the API server made at `version`. An older one than the last says nothing.

        Returns what had gone, and no watch had told.
        """
        if version < self._complete.get(kind, 0):
            return ()
        uids = set()
        for manifest in listed:
            uids.add(uid_of(manifest))
            self.put(manifest)
        missing = [one for address, one in self._objects.items() if address[0] == kind and uid_of(one) not in uids]
        gone = tuple(one for one in missing if version_of(one) <= version)
        for one in gone:
            self._drop(_address(one))
        self._complete[kind] = version
        graves = self._graves.pop(kind, {}).items()
        self._graves[kind] = {uid: grave for uid, grave in graves if uid in uids or grave.version > version}
        return gone

    def clear(self, kind: str) -> tuple[Manifest, ...]:
        """The cluster does not have that kind any more, so none of it is left; returns what was known."""
        known = tuple(one for address, one in self._objects.items() if address[0] == kind)
        for one in known:
            self._drop(_address(one))
        return known

    def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        """One object, or None."""
        return self._objects.get((kind, namespace, name))

    def live(self, manifest: Manifest) -> Manifest | None:
        """The known object that `manifest` would be applied to."""
        return self._objects.get(_address(manifest))

    def children(self, key: Key) -> dict[str, tuple[Manifest, ...]]:
        """The children of a deployment by kind, each kind sorted by name."""
        addresses = sorted(self._family.get(key, ()))
        return {kind: tuple(self._objects[one] for one in addresses if one[0] == kind) for kind in KINDS}

    def unplaced(self, namespace: str) -> tuple[Manifest, ...]:
        """The pods of a namespace that no node has room for."""
        return tuple(self._objects[address] for address in self._unplaced.get(namespace, ()))

    def unplaced_of(self, key: Key) -> tuple[Manifest, ...]:
        """Those of one deployment."""
        none: set[_Address] = set()
        here = self._family.get(key, none) & self._unplaced.get(key.namespace, none)
        return tuple(self._objects[address] for address in here)

    def unplaced_count(self, namespace: str) -> int:
        """How many those are."""
        return len(self._unplaced.get(namespace, ()))

    def keepers(self, namespace: str) -> tuple[Key, ...]:
        """The deployments of a namespace that keep replicas warm."""
        return tuple(self._keepers.get(namespace, ()))

    def deployments(self) -> set[Key]:
        """Every deployment that is known, itself or by a child."""
        return set(self._family)

    def __len__(self) -> int:
        """How many objects are known."""
        return len(self._objects)

    def _bury(self, manifest: Manifest, grave: _Grave) -> None:
        self._graves.setdefault(kind_of(manifest), {})[uid_of(manifest)] = grave

    def _key(self, address: _Address, manifest: Manifest) -> Key:
        return self._foreign.get(address) or key_of(manifest)

    def _keep(self, address: _Address, kept: Manifest) -> None:
        self._objects[address] = kept
        key = self._key(address, kept)
        self._family.setdefault(key, set()).add(address)
        if _is_unplaced(kept):
            self._unplaced.setdefault(key.namespace, set()).add(address)
        if keeps_warm(kept):
            self._keepers.setdefault(key.namespace, set()).add(key)

    def _drop(self, address: _Address) -> None:
        known = self._objects.pop(address, None)
        if known is None:
            return
        key = self._key(address, known)
        _discard(self._family, key, address)
        _discard(self._unplaced, key.namespace, address)
        if kind_of(known) == names.KIND:
            _discard(self._keepers, key.namespace, key)


def keeps_warm(deployment: Manifest) -> bool:
    """Whether it is a deployment that keeps replicas which it could give up."""
    return kind_of(deployment) == names.KIND and dig(deployment, "spec", "rollout", "keepWarm") is not None


def _address(manifest: Manifest) -> _Address:
    return kind_of(manifest), namespace_of(manifest), name_of(manifest)


def _is_unplaced(manifest: Manifest) -> bool:
    """Whether it is a pod that the scheduler has found no node for. Source: pod condition `PodScheduled`."""
    if kind_of(manifest) != "Pod" or is_deleting(manifest):
        return False
    conditions = dig(manifest, "status", "conditions", default=())
    return any(one["type"] == "PodScheduled" and one.get("reason") == "Unschedulable" for one in conditions)


def _discard(groups: dict[_Name, set[_Member]], name: _Name, member: _Member) -> None:
    group = groups.get(name, set())
    group.discard(member)
    if not group:
        groups.pop(name, None)


def _reusing(known: Manifest, now: Manifest) -> Manifest:
    """`now`, with its parts that `known` has as well taken from there.

    So memory holds them once, whoever parsed them how often, and to compare them takes no time.
    """
    metadata = _parts(known["metadata"], now["metadata"])
    return {**_parts(known, now), "metadata": metadata}


def _parts(known: Manifest, now: Manifest) -> dict[str, Any]:
    return {name: known[name] if name in known and known[name] == value else value for name, value in now.items()}


def _content(kept: Manifest) -> Manifest:
    """All but the version, and the figures of an autoscaler, which change all the time: only its judgement counts."""
    found = {**kept, "metadata": {**kept["metadata"], "resourceVersion": None}}
    if kind_of(kept) == "HorizontalPodAutoscaler":
        found["status"] = {name: value for name, value in kept["status"].items() if name != "currentMetrics"}
    return found
