"""What the gateway reads out of LLMDeployments and pods. Pure.

Lenient, because the API server has judged these objects already and a newer operator may write more than this gateway
knows: an object without what routing needs gives None, and no object can stop the others from being served.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from moorage_api import names
from moorage_gateway.table import Key, Model, Revision, Start, Target

# A public name travels in a header and in messages.
_PUBLIC_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_MAX_RUNNING: Final = 64
"""The default of the resource, which the API server writes into every object."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """The part of an LLMDeployment that routing reads; `weights` maps a revision's number to its share."""

    key: Key
    public_name: str
    created: int
    reason: str
    message: str
    weights: Mapping[int, int]
    start: Start
    full_at: int
    labels: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Replica:
    """A pod that is ready, and which revision of which deployment it runs; by itself, or with others of a group.

    Attributes:
        target: Where its requests go.
        leads: Whether requests are its business; of a group it is one pod's.
        group: Which group of its revision it belongs to; empty: it is a replica by itself.
        size: How many pods are a replica together.
    """

    key: Key
    revision: int
    target: Target
    leads: bool = True
    group: str = ""
    size: int = 1


def deployment(raw: Mapping[str, Any]) -> Deployment | None:
    """Read an LLMDeployment; None when its public name could not travel in a header."""
    meta, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    public_name = (spec.get("model") or {}).get("servedName") or meta["name"]
    if not isinstance(public_name, str) or not _PUBLIC_NAME.fullmatch(public_name):
        return None
    ready = _condition(status, "Ready")
    return Deployment(
        key=(meta["namespace"], meta["name"]),
        public_name=public_name,
        created=_epoch(meta.get("creationTimestamp")),
        reason=str(ready.get("reason") or "Pending"),
        message=str(ready.get("message") or "The operator has not reported on this LLMDeployment yet."),
        weights={
            revision["number"]: revision.get("weight") or 0
            for revision in status.get("revisions") or ()
            if isinstance(revision.get("number"), int)
        },
        start=_start(spec, status),
        full_at=((spec.get("engine") or {}).get("scheduling") or {}).get("maxRunning") or _MAX_RUNNING,
        labels=tuple(sorted((meta.get("labels") or {}).items())),
    )


def replica(raw: Mapping[str, Any]) -> Replica | None:
    """Read a pod; None unless it serves, or helps to: a rank, Ready, an address, not being deleted."""
    meta, status = raw["metadata"], raw.get("status") or {}
    labels = meta.get("labels") or {}
    name, revision = labels.get(names.DEPLOYMENT_LABEL), labels.get(names.REVISION_LABEL, "")
    group, address = labels.get(names.GROUP_LABEL, ""), status.get("podIP")
    leads = labels.get(names.POD_INDEX_LABEL if group else names.RANK_LABEL) == "0"
    if not name or not revision.isdecimal() or not (leads or group) or not address:
        return None
    if meta.get("deletionTimestamp") or _condition(status, "Ready").get("status") != "True":
        return None
    host = f"[{address}]" if ":" in address else address
    return Replica(
        key=(meta["namespace"], name),
        revision=int(revision),
        target=Target(key=meta["uid"], pod=meta["name"], address=f"{host}:{names.HTTP_PORT}"),
        leads=leads,
        group=group,
        size=int(labels[names.GROUP_SIZE_LABEL]) if group else 1,
    )


def model(source: Deployment, replicas: Iterable[Replica]) -> Model:
    """Put an LLMDeployment and its pods together; a revision that only one of the two knows is there as well."""
    targets: dict[int, list[Target]] = {number: [] for number in source.weights}
    for each in whole(replicas):
        targets.setdefault(each.revision, []).append(each.target)
    namespace, name = source.key
    return Model(
        namespace=namespace,
        deployment=name,
        name=source.public_name,
        created=source.created,
        reason=source.reason,
        message=source.message,
        revisions=tuple(
            Revision(number, source.weights.get(number, 0), tuple(sorted(found, key=lambda target: target.pod)))
            for number, found in sorted(targets.items())
        ),
        start=source.start,
        full_at=source.full_at,
        labels=source.labels,
    )


def whole(replicas: Iterable[Replica]) -> Iterator[Replica]:
    """Those that take requests: of a group the one that leads, while all of its pods are there."""
    pods = tuple(replicas)
    ready = Counter((each.revision, each.group) for each in pods)
    return (each for each in pods if each.leads and (not each.group or ready[each.revision, each.group] >= each.size))


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    return next((each for each in status.get("conditions") or () if each.get("type") == kind), {})


def _start(spec: Mapping[str, Any], status: Mapping[str, Any]) -> Start:
    """Whether something starts, or would for a request.

    Not where a person stopped it (`replicas: 0`), nor what cannot be used or goes on by itself no more; but a broken
    edit of a model that sleeps does not keep it from waking as it was.
    """
    accepted, stalled, available = (
        _condition(status, kind).get("status") == "True" for kind in ("Accepted", "Stalled", "Available")
    )
    startup = status.get("startup") or {}
    return Start(
        possible=spec.get("replicas") != 0 and (available or (accepted and not stalled)),
        proven=available,
        ready_at=_epoch(startup.get("estimatedReady")) or None,
        seconds=sum((startup.get("seconds") or {}).values()),
    )


def _epoch(timestamp: str | None) -> int:
    return int(datetime.fromisoformat(timestamp).timestamp()) if timestamp else 0
