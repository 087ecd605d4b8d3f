"""Replicas that are several pods each: when one is whole, how far it is, and whose trouble is the trouble of all.

None of its pods answers without the others, so a group is one replica to everybody who counts replicas.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from moorage_api import names
from moorage_api.conditions import PODS_ON_THE_WAY, Reason
from moorage_operator.manifest import Manifest, is_deleting, label_of, name_of, number_of, revision_of
from moorage_operator.plan.pods import Replica, Trouble, counts, is_placed, replica_of

_BEFORE_THE_SERVER: Final = frozenset({Reason.SCHEDULING, Reason.FETCHING_MODEL})
"""Phases in which a pod cannot meet the others yet: they wait for it, and may tire of it."""


@dataclass(frozen=True)
class Group:
    """One group of a revision, as it is."""

    number: int
    workload: Manifest | None = None
    """What makes its pods; None: that is gone, and they end."""
    replica: Replica | None = None
    """What its pods are together; None while it has none, or they all end."""
    placed: int = 0
    """How many of its pods have a node."""
    leaving: bool = False
    """Whether any of its pods was told to go: drained, evicted, or its node is lost."""


def replicas(pods: Iterable[Manifest]) -> tuple[Replica, ...]:
    """The replicas that exist: without those on their way out and those that were given up, such as evicted ones."""
    serving = [pod for pod in pods if not label_of(pod, names.PURPOSE_LABEL) and counts(pod)]
    alone = (replica_of(pod) for pod in serving if group_of(pod) is None)
    return (*alone, *(_joined(number, members) for (_, number), members in sorted(_together(serving).items())))


def groups(
    sets: Iterable[Manifest], pods: Iterable[Manifest], joined: Iterable[Replica]
) -> dict[int, tuple[Group, ...]]:
    """The groups of each revision, by number.

    Args:
        sets: the workloads that make one group each.
        pods: all that have the deployment's name, those of a deleted namesake too: their names are taken.
        joined: the replicas that they are.
    """
    found: dict[tuple[int, int], Group] = {}
    for key, members in _together(pods).items():
        found[key] = Group(key[1], placed=sum(map(is_placed, members)), leaving=any(map(is_deleting, members)))
    for one in sets:
        if (number := group_of(one)) is not None:
            key = revision_of(one), number
            found[key] = replace(found.get(key, Group(number)), workload=one)
    for replica in joined:
        if replica.group is not None and (key := (replica.revision, replica.group)) in found:
            found[key] = replace(found[key], replica=replica)
    by_revision: dict[int, tuple[Group, ...]] = {}
    for revision, number in sorted(found):
        by_revision[revision] = (*by_revision.get(revision, ()), found[revision, number])
    return by_revision


def group_of(manifest: Manifest) -> int | None:
    """The group that a workload or a pod belongs to; None where it is a replica, or several, by itself."""
    return number_of(manifest, names.GROUP_LABEL)


def maker_of(manifest: Manifest) -> tuple[int, int | None]:
    """What tells the workload that a pod is of, or a workload itself, from the others: its revision, and its group."""
    return revision_of(manifest), group_of(manifest)


def _together(pods: Iterable[Manifest]) -> Mapping[tuple[int, int], list[Manifest]]:
    """The pods of each group, by revision and number."""
    found = defaultdict(list)
    for pod in pods:
        if (number := group_of(pod)) is not None:
            found[revision_of(pod), number].append(pod)
    return found


def _joined(number: int, pods: Sequence[Manifest]) -> Replica:
    """One replica of the pods of a group that are there."""
    members = sorted(((_index(pod), name_of(pod), replica_of(pod)) for pod in pods), key=lambda one: one[:2])
    there = [replica for _, _, replica in members]
    size = max(number_of(pod, names.GROUP_SIZE_LABEL) or 1 for pod in pods)
    complete = len(there) >= size
    behind = [one.phase for one in there if not one.ready]
    phase = min(behind, key=PODS_ON_THE_WAY.index, default=Reason.SCHEDULING) if complete else Reason.SCHEDULING
    waiting = [one.unschedulable_since for one in there if one.unschedulable_since is not None]
    crowded = [one.crowded_since for one in there if one.crowded_since is not None]
    ready = complete and not behind
    trouble, restarts = (None, 0) if ready else _blamed(members, awaited=phase in _BEFORE_THE_SERVER)
    return Replica(
        revision=there[0].revision,
        ready=ready,
        phase=phase,
        trouble=trouble,
        model_digest=next((one.model_digest for one in there if one.model_digest), None),
        uid=next((replica.uid for index, _, replica in members if index == 0), ""),
        restarts=restarts,
        born=min((one.born for one in there if one.born), default=None),
        ready_since=max((one.ready_since for one in there if one.ready_since), default=None) if ready else None,
        unschedulable_since=min(waiting, default=None),
        # Where one pod would not fit an empty node either, room alone does not help.
        crowded_since=min(crowded) if crowded and len(crowded) == len(waiting) else None,
        group=number,
    )


def _blamed(members: Sequence[tuple[int, str, Replica]], *, awaited: bool) -> tuple[Trouble | None, int]:
    """Whose trouble it is, of all who have some, and how often the group ended by the like of it.

    A server that ends on an error usually does so because of another one, which was lost or never came: while one is
    awaited, what the others say is never the matter, and otherwise the last to be believed. Of those the first one
    says which rank it was. What ends the group ends each of them, once; who had to wait has tired of it besides.
    """
    own: list[tuple[Trouble, int]] = []
    others: list[tuple[Trouble, int]] = []
    for _, name, replica in members:
        if replica.trouble is None:
            continue
        trouble = Trouble(replica.trouble.reason, f"{name}: {replica.trouble.detail}")
        follows = trouble.reason is Reason.ENGINE_FAILED and replica.phase not in _BEFORE_THE_SERVER
        (others if follows else own).append((trouble, replica.restarts))
    if own or awaited or not others:
        return next(iter(own), (None, 0))
    return others[0][0], min(replica.restarts for _, _, replica in members)


def _index(pod: Manifest) -> int:
    found = number_of(pod, names.POD_INDEX_LABEL)
    return -1 if found is None else found
