"""reconcile(key): snapshot -> plan -> execute, until there is nothing left to do."""

import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from moorage_api import names
from moorage_operator.cluster.client import RejectedError
from moorage_operator.cluster.events import Events
from moorage_operator.cluster.store import Store, keeps_warm
from moorage_operator.cluster.writer import Writer
from moorage_operator.manifest import STATEFUL_SET, WORKLOADS, Key, Manifest, dig, kind_of, name_of, namespace_of
from moorage_operator.plan.figures import Gateway
from moorage_operator.plan.metrics_api import MetricsApi
from moorage_operator.plan.nodes import Nodes
from moorage_operator.plan.passing import moves_nothing, passes
from moorage_operator.plan.planner import plan
from moorage_operator.plan.snapshot import AUTOSCALER, Event, Plan, Snapshot
from moorage_operator.render.context import Context
from moorage_operator.shell.shortage import is_short, looks_for_room, waits

log = logging.getLogger(__name__)

PASSING_SECONDS: Final = 2.0
"""A phase of a start that is over before is never written."""
NODES_SECONDS: Final = 10.0
"""How long a status waits for the nodes to be read, when they belong to what it says."""
_STARTING: Final = frozenset({"ControllerRevision", *WORKLOADS, "Pod"})
"""What it takes to start pods, which take longest, so that with many deployments all of them start first."""
_REFUSALS: Final = frozenset({400, 403, 422})
"""The API server will not have what we render, and asking again does not help: the user must know."""
_NAMESPACE_GOES: Final = "because it is being terminated"
"""Of a refusal by the admission plugin NamespaceLifecycle: the object itself will be gone in a moment."""
NAMESPACE_SECONDS: Final = 10.0
_NOT_BY_ITSELF: Final = ("failed calling webhook", "field not declared in schema")
"""Of errors 500 that do not pass: who has to agree to such an object does not answer, or the kind is an older one."""


class Reconciler:
    """Brings one deployment a step closer to its spec at each call.

    Args:
        store: what is known of the cluster.
        writer: how it is changed.
        events: how it is told.
        context: what the installation fixed.
        now: the time.
        gateways: what the gateways know of a deployment; None in an installation without.
        nodes: what nodes have, for a deployment that waits for some of it; None where nobody knows yet.
        told: why pods of a deployment's groups are not made, by the uid of their workload.
        metrics: whether autoscalers can have our metrics; None where nobody knows yet.
        group_kind: what new groups of pods are made as.
    """

    def __init__(
        self,
        store: Store,
        writer: Writer,
        events: Events,
        context: Context,
        now: Callable[[], datetime],
        *,
        gateways: Callable[[Key], tuple[Gateway, ...]] | None = None,
        nodes: Callable[[Key], Nodes | None] = lambda _: None,
        told: Callable[[Key], Mapping[str, str]] = lambda _: {},
        metrics: Callable[[], MetricsApi | None] = lambda: None,
        group_kind: Callable[[], str] = lambda: STATEFUL_SET,
    ) -> None:
        self._store = store
        self._writer = writer
        self._events = events
        self._context = context
        self._now = now
        self._gateways = gateways
        self._nodes = nodes
        self._told = told
        self._metrics = metrics
        self._group_kind = group_kind
        self._untold: dict[Key, deque[tuple[Manifest, Event]]] = {}
        self._held: dict[Key, datetime] = {}  # since when a status waits, since more is to come in a moment

    async def reconcile(self, key: Key) -> float | None:
        """Returns the seconds after which to look again, or None when only a change calls for that.

        Raises:
            ClusterError: something could not be written; try again.
        """
        deployment = self._store.get(names.KIND, key.namespace, key.name)
        if deployment is None:
            self._untold.pop(key, None)
            self._held.pop(key, None)
            return None  # gone: its children have it as their owner and follow
        snapshot = self._snapshot(key, deployment)
        decided = plan(snapshot, self._context)
        try:
            wrote, refused = await self._change(deployment, decided)
        except RejectedError as error:
            if _NAMESPACE_GOES in error.message:
                return NAMESPACE_SECONDS
            if _is_for_people(error):
                await self._report(deployment, plan(replace(snapshot, refused=error.message), self._context))
            raise
        if refused:
            decided = plan(replace(snapshot, autoscaler_refused=refused), self._context)
        if wrote:
            return 0.0  # it is in the store already: go on from there, and report only once there is nothing to change
        if early := self._too_early(key, snapshot, decided):
            return early if decided.requeue_after is None else min(early, decided.requeue_after)
        wrote = await self._report(deployment, decided)
        gone = [await self._writer.is_gone(stranger) for stranger in decided.in_the_way]
        return 0.0 if wrote or any(gone) else decided.requeue_after

    def _snapshot(self, key: Key, deployment: Manifest) -> Snapshot:
        return Snapshot(
            deployment=deployment,
            children=self._store.children(key),
            now=self._now(),
            gateways=None if self._gateways is None else self._gateways(key),
            accelerators_short=keeps_warm(deployment) and is_short(self._store, key.namespace),
            nodes=self._nodes(key) if looks_for_room(self._store, key) else None,
            told=self._told(key),
            metrics=self._metrics(),
            group_kind=self._group_kind(),
        )

    def _too_early(self, key: Key, snapshot: Snapshot, decided: Plan) -> float:
        """Seconds that a status has to wait, by when it may be out of date; 0 when it is to be written."""
        patience = self._patience(key, snapshot, decided)
        if patience:
            waited = (snapshot.now - self._held.setdefault(key, snapshot.now)).total_seconds()
            if 0 <= waited < patience:
                return patience - waited
        self._held.pop(key, None)
        return 0.0

    def _patience(self, key: Key, snapshot: Snapshot, decided: Plan) -> float:
        """How many seconds a status may wait."""
        before, status = dig(snapshot.deployment, "status", default={}), decided.status
        if status is None or before == status:
            return 0.0
        if snapshot.nodes is None and waits(self._store, key) and moves_nothing(before, status):
            return NODES_SECONDS  # they are being read: without them half of it is missing, and would be written after
        return PASSING_SECONDS if decided.unripe or passes(before, status) else 0.0

    async def _change(self, deployment: Manifest, decided: Plan) -> tuple[bool, str]:
        """Write until nothing is left to do, or a workload was changed: pods of all come before anybody's rest.

        Returns whether anything was, and why the autoscaler was refused, without which all the rest goes on.
        """
        wrote, started, refused = False, False, ""
        for apply in decided.applies:
            if started and kind_of(apply.manifest) not in _STARTING:
                return True, ""
            try:
                changed = await self._writer.apply(deployment, apply.manifest)
            except RejectedError as error:
                if kind_of(apply.manifest) != AUTOSCALER or not _is_for_people(error):
                    raise
                changed, refused = False, error.message
            if changed:
                log.info("%s: applied %s %s: %s", _label(deployment), *_names(apply.manifest), apply.reason)
                wrote = True
                started |= kind_of(apply.manifest) in WORKLOADS
        for delete in decided.deletes:
            await self._writer.delete(delete.manifest)
            log.info("%s: deleted %s %s: %s", _label(deployment), *_names(delete.manifest), delete.reason)
            wrote = True
        return wrote, refused

    async def _report(self, deployment: Manifest, decided: Plan) -> bool:
        """Tell the events, then write the status: once it says them, no later plan would call for them."""
        wrote = False
        try:
            await self._tell(deployment, decided)
        finally:  # clusters may keep events in a store of their own: without it the status says the truth all the same
            if decided.status is not None:
                wrote = await self._writer.report(deployment, decided.status)
        return wrote

    async def _tell(self, deployment: Manifest, decided: Plan) -> None:
        key = Key(namespace_of(deployment), name_of(deployment))
        # What could not be told is in no later plan, since the status says it already: it waits here.
        waiting = self._untold.setdefault(key, deque())
        waiting.extend((deployment, event) for event in decided.events)
        while waiting:
            await self._tell_one(*waiting[0])
            waiting.popleft()
        del self._untold[key]

    async def _tell_one(self, deployment: Manifest, event: Event) -> None:
        try:
            await self._events.tell(deployment, event.kind, event.reason, event.message)
        except RejectedError as error:
            if error.status not in _REFUSALS:
                raise
            log.warning("%s: the event %s is refused: %s", _label(deployment), event.reason, error)


def _is_for_people(error: RejectedError) -> bool:
    """Whether somebody has to do something about it: asking again does not help, though the namespace stays."""
    refused = error.status in _REFUSALS or any(words in error.message for words in _NOT_BY_ITSELF)
    return refused and _NAMESPACE_GOES not in error.message


def _label(deployment: Manifest) -> str:
    return f"{deployment['metadata']['namespace']}/{name_of(deployment)}"


def _names(manifest: Manifest) -> tuple[str, str]:
    return kind_of(manifest), name_of(manifest)
