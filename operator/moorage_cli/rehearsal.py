"""What a rollout would do, step by step: the operator's own `plan`, followed in a world where everything works.

Replicas start at once, gateways hear of everything, and so many good requests come that every gate holds. What remains
is what spec itself prescribes: sizes, weights and holds. Pure: the cluster is only read, before this begins.
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from moorage_api import names
from moorage_api.source import ClaimSource, HubSource, PythonSource, parse_source
from moorage_operator.cluster.compare import includes
from moorage_operator.manifest import (
    KINDS,
    WORKLOADS,
    Manifest,
    dig,
    kind_of,
    label_of,
    name_of,
    number_of,
)
from moorage_operator.plan.figures import Gateway, RevisionFigures
from moorage_operator.plan.groups import group_of, maker_of, replicas
from moorage_operator.plan.planner import plan
from moorage_operator.plan.snapshot import Plan, Snapshot
from moorage_operator.render.context import Context
from moorage_operator.render.workload import pods_made, template_of

_BEATS: Final = 3000
"""More than any rollout of the largest size takes."""
_QUIET: Final = 3
"""Looks in a row at which nothing happens: then it is over."""
_LOOK: Final = 1.0
"""Seconds between two looks where the plan does not say."""
_BOUNDS: Final = (0.1, 1.0)
_BURST: Final = 1_000_000
"""Requests between two looks: as many as the largest `minRequests`."""


@dataclass(frozen=True)
class Share:
    """What one revision has at one moment."""

    number: int
    role: str
    weight: int
    replicas: int


@dataclass(frozen=True)
class Moment:
    """A moment at which the shares change."""

    seconds: float
    """Since the beginning, without the time that replicas take to start."""
    shares: tuple[Share, ...]
    why: str


@dataclass(frozen=True)
class Write:
    """What the operator would do to one object; `verb` is `create`, `change` or `delete`."""

    verb: str
    manifest: Manifest
    reason: str

    @property
    def what(self) -> tuple[str, str, str]:
        """Verb, kind and name."""
        return self.verb, kind_of(self.manifest), name_of(self.manifest)


@dataclass(frozen=True)
class Rehearsed:
    """A whole rollout. `settled`: it came to its end, which is `reason` and `message` of `Ready`."""

    writes: tuple[Write, ...]
    """In their order; the same thing that is done to the same object again is told once."""
    moments: tuple[Moment, ...]
    settled: bool
    reason: str
    message: str


class _World:
    """One deployment, its children by kind and name, and what gateways have counted."""

    def __init__(self, snapshot: Snapshot, context: Context) -> None:
        self._context = context
        self._snapshot = snapshot
        self._objects = {
            (kind_of(one), name_of(one)): one
            for kind in KINDS
            if kind != "Pod"
            for one in snapshot.children.get(kind, ())
        }
        self._pods = {name_of(one): _started(one) for one in snapshot.children.get("Pod", ())}
        self._requests: dict[int, int] = {}
        self._made = 0
        self.writes: dict[tuple[str, str, str], Write] = {}

    @property
    def status(self) -> Manifest:
        found: Manifest = dig(self._snapshot.deployment, "status", default={})
        return found

    @property
    def now(self) -> datetime:
        return self._snapshot.now

    def beat(self) -> bool:
        """Follow the plan once; whether anything was written."""
        decided = plan(self._seen(), self._context)
        written = [
            Write(verb, one.manifest, one.reason) for one in decided.applies if (verb := self._apply(one.manifest))
        ]
        written += [Write("delete", one.manifest, one.reason) for one in decided.deletes if self._delete(one.manifest)]
        self._control()
        if written:
            for one in written:
                self.writes.setdefault(one.what, one)
            return True
        changed = decided.status is not None and decided.status != self.status
        if changed:
            deployment = {**self._snapshot.deployment, "status": decided.status}
            self._snapshot = replace(self._snapshot, deployment=deployment)
        else:
            self._wait(decided)
        return changed

    def _wait(self, decided: Plan) -> None:
        until = self.now + timedelta(seconds=decided.requeue_after or _LOOK)
        self._snapshot = replace(self._snapshot, now=until)
        for row in self.status.get("revisions", ()):
            if row["weight"]:
                self._requests[row["number"]] = self._requests.get(row["number"], 0) + _BURST

    def _seen(self) -> Snapshot:
        children: dict[str, tuple[Manifest, ...]] = dict.fromkeys(KINDS, ())
        for (kind, _), one in sorted(self._objects.items()):
            children[kind] += (one,)
        children["Pod"] = tuple(self._pods.values())
        return replace(self._snapshot, children=children, gateways=(self._gateway(),))

    def _gateway(self) -> Gateway:
        """One that knows all ready pods and the weights that were reported."""
        weights = {row["number"]: row["weight"] for row in self.status.get("revisions", ())}
        targets: dict[int, set[str]] = {}
        for one in replicas(tuple(self._pods.values())):
            targets.setdefault(one.revision, set()).add(one.uid)
        rows = tuple(
            RevisionFigures(
                number=number,
                weight=weights.get(number, 0),
                targets=frozenset(targets.get(number, ())),
                requests=self._requests.get(number, 0),
                ttft=(self._requests.get(number, 0), 0, 0),
                itl=(self._requests.get(number, 0), 0, 0),
            )
            for number in sorted({*weights, *targets, *self._requests})
        )
        return Gateway("rehearsed", "2000-01-01T00:00:00Z", True, rows, (), _BOUNDS, _BOUNDS)  # noqa: FBT003 - answers

    def _apply(self, manifest: Manifest) -> str:
        """Returns what it is for the object: `create`, `change`, or nothing."""
        key = kind_of(manifest), name_of(manifest)
        born = {"creationTimestamp": f"{self.now:%Y-%m-%dT%H:%M:%SZ}"}
        if key[0] == "Pod":
            self._pods[key[1]] = _answered({**manifest, "metadata": {**manifest["metadata"], **born, "uid": key[1]}})
            return "create"
        known = self._objects.get(key)
        if known is not None and includes(known, manifest):
            return ""
        kept = {"creationTimestamp": known["metadata"]["creationTimestamp"]} if known is not None else born
        self._objects[key] = {**manifest, "metadata": {**manifest["metadata"], **kept}}
        return "create" if known is None else "change"

    def _delete(self, manifest: Manifest) -> bool:
        if kind_of(manifest) == "Pod":
            return self._pods.pop(name_of(manifest), None) is not None
        return self._objects.pop((kind_of(manifest), name_of(manifest)), None) is not None

    def _control(self) -> None:
        """Pods follow their workloads."""
        wanted = {maker_of(one): one for (kind, _), one in self._objects.items() if kind in WORKLOADS}
        kept = {name: pod for name, pod in self._pods.items() if label_of(pod, names.PURPOSE_LABEL)}
        for whose, workload in wanted.items():
            there = [pod for pod in self._pods.values() if maker_of(pod) == whose and name_of(pod) not in kept]
            count = pods_made(workload)
            kept |= {name_of(pod): pod for pod in there[:count]}
            kept |= {name_of(pod): pod for pod in self._new(workload, there)}
        self._pods = kept

    def _new(self, workload: Manifest, there: Sequence[Manifest]) -> Iterator[Manifest]:
        count = pods_made(workload)
        taken = {number_of(pod, names.POD_INDEX_LABEL) for pod in there}
        free = (index for index in range(count) if index not in taken)
        for index in itertools.islice(free, max(0, count - len(there))):
            self._made += 1
            name = f"{name_of(workload)}-{self._made}"
            labels = template_of(workload)["metadata"]["labels"]
            if group_of(workload) is not None:
                labels = {**labels, names.POD_INDEX_LABEL: str(index)}
            metadata = {
                "name": name,
                "uid": name,
                "labels": labels,
                "creationTimestamp": f"{self.now:%Y-%m-%dT%H:%M:%SZ}",
            }
            yield _started({"kind": "Pod", "metadata": metadata})


def rehearse(snapshot: Snapshot, context: Context) -> Rehearsed:
    """Follow the operator's plans from `snapshot` on until nothing is left to do."""
    world, quiet = _World(snapshot, context), 0
    begun, before = snapshot.now, _shares(world.status)
    moments = [Moment(0.0, before, "as it is now")] if before else []
    for _ in range(_BEATS):
        quiet = 0 if world.beat() else quiet + 1
        shares = _shares(world.status)
        if shares and (not moments or moments[-1].shares != shares):
            moments.append(Moment((world.now - begun).total_seconds(), shares, _why(world.status)))
        if quiet >= _QUIET and _ready(world.status).get("status") != "False":
            break
    last = _ready(world.status)
    return Rehearsed(
        tuple(world.writes.values()), tuple(moments), quiet >= _QUIET, last.get("reason", ""), last.get("message", "")
    )


def _shares(status: Manifest) -> tuple[Share, ...]:
    rows = status.get("revisions", ())
    return tuple(Share(row["number"], row["role"], row["weight"], row["replicas"]) for row in rows)


def _why(status: Manifest) -> str:
    return str(dig(status, "rollout", "message") or _ready(status).get("message", ""))


def _ready(status: Manifest) -> Mapping[str, Any]:
    return next((one for one in status.get("conditions", ()) if one["type"] == "Ready"), {})


def _started(pod: Manifest) -> Manifest:
    """The same pod, answering requests."""
    conditions = [{"type": kind, "status": "True"} for kind in ("PodScheduled", "Ready")]
    return {**pod, "status": {"conditions": conditions}}


def _answered(pod: Manifest) -> Manifest:
    """A pod that looks a source up, with its answer: which commit or version it will be, nobody knows yet."""
    container = pod["spec"]["containers"][0]
    asked = str((container.get("args") or container["command"])[-1])
    said = json.dumps({"source": _pinned(asked)})
    terminated = {"exitCode": 0, "message": said}
    statuses = [{"name": container["name"], "state": {"terminated": terminated}}]
    return {**pod, "status": {"containerStatuses": statuses}}


def _pinned(source: str) -> str:
    match parse_source(source):
        case HubSource():
            return f"{source.partition('@')[0]}@COMMIT"
        case PythonSource():
            return f"{source}==VERSION"
        case ClaimSource():
            return source
