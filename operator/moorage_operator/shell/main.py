"""`moorage-operator`: wait for the lead, lead, and end as soon as either the lead or the work ends."""

import asyncio
import gc
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Final

import uvloop

from moorage_operator.cluster.client import Client, ClusterError
from moorage_operator.cluster.events import Events
from moorage_operator.cluster.lease import Lease
from moorage_operator.cluster.store import Store
from moorage_operator.cluster.writer import Writer
from moorage_operator.manifest import Key
from moorage_operator.plan.metrics_api import MetricsApi
from moorage_operator.plan.nodes import Nodes
from moorage_operator.shell import account, credentials, ear, health, session
from moorage_operator.shell.gateways import Gateways
from moorage_operator.shell.inventory import ONE_NAMESPACE, Inventory
from moorage_operator.shell.lead import Leader
from moorage_operator.shell.leader_worker_sets import LeaderWorkerSets
from moorage_operator.shell.metrics import Metrics
from moorage_operator.shell.queue import WorkQueue
from moorage_operator.shell.reconcile import Reconciler
from moorage_operator.shell.refusals import Refusals
from moorage_operator.shell.registrar import Registrar
from moorage_operator.shell.settings import Settings, read_settings

log = logging.getLogger(__name__)

_YOUNG: Final = 20_000
"""New containers between two sweeps of the youngest; Python's own is 700. An event of a pod makes some hundred."""
_TOLD: Final = 0
_LEAD_LOST: Final = 1


def main() -> None:
    """Run the operator until it is told to stop (exit status 0) or breaks down (1)."""
    settings = read_settings(sys.argv[1:], os.environ)
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    ear.quiet()
    _spare_collector()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            sys.exit(runner.run(operate(settings)))
    except credentials.NoCredentialsError as error:
        sys.exit(f"moorage-operator: {error}")


def _spare_collector() -> None:
    """Sweep less often, and never what the program itself is made of.

    Each sweep looks at all that is known of the cluster, none of which is garbage: of a start it took a seventh.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG)


async def operate(settings: Settings) -> int:
    """The whole life of the process; returns its exit status."""
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    metrics = Metrics()
    pulse = health.Pulse(time.monotonic)
    leading = metrics.leading.labels(settings.lease_name)
    leading.set(0)
    connector = credentials.connector(os.environ)
    # Its own connections: a renewal must not stand in line behind the workers' requests to a slow API server.
    for_lease = Client(connector, metrics.observe_request)
    lease = _lease(settings, for_lease)
    async with (
        for_lease,
        Client(connector, metrics.observe_request, may_write=lease.held) as client,
        health.served(health.application(pulse, metrics.registry), settings.port),
    ):
        pulse.ready = True  # a follower is ready to take over
        if not await _first(told.wait(), lease.acquire()):
            return 0
        leading.set(1)
        pulse.ready = False
        leader = _leader(settings, client, metrics, pulse, lambda: lease.version)
        hearing = leader.ear(lambda: session.renewing(connector))
        ended = await _first(told.wait(), lease.keep(), leader.lead(hearing))
        # Nothing of ours writes any more, and kopf never does: the next one need not wait for kopf to end.
        if ended != _LEAD_LOST:
            await _release(lease)
        await hearing.closed()
        return 0 if ended == _TOLD else 1


def _lease(settings: Settings, client: Client) -> Lease:
    owner = account.owner(credentials.login(os.environ).token, settings.namespace)
    where = (settings.namespace, settings.lease_name, settings.identity)
    return Lease(client, *where, monotonic=_awake_or_asleep, owner=owner)


def _leader(
    settings: Settings, client: Client, metrics: Metrics, pulse: health.Pulse, since: Callable[[], int]
) -> Leader:
    store = Store()
    metrics.objects.set_function(lambda: len(store))
    writer = Writer(client, store)
    chance = random.SystemRandom().random
    events = Events(client, settings.identity, time.time)
    gateways = _gateways(settings, client, chance)
    known = None if gateways is None else gateways.of
    queue = WorkQueue[Key](asyncio.get_running_loop(), chance, metrics.queue)
    inventory = Inventory(client, queue.add) if settings.watch_namespace is None else None
    nodes = inventory.of if inventory is not None else _one_namespace
    registrar = _registrar(settings, client, store, gateways, queue.add)
    known_metrics = registrar.state if registrar is not None else _no_cluster
    refusals = Refusals(client, store, queue.add)
    sets = LeaderWorkerSets(client, store, settings.watch_namespace, queue.add)
    reconciler = Reconciler(
        store,
        writer,
        events,
        settings.context,
        _now,
        gateways=known,
        nodes=nodes,
        metrics=known_metrics,
        told=refusals.of,
        group_kind=sets.kind,
    )
    return Leader(
        settings=settings,
        client=client,
        store=store,
        writer=writer,
        queue=queue,
        reconciler=reconciler,
        metrics=metrics,
        pulse=pulse,
        chance=chance,
        now=_now,
        gateways=gateways,
        inventory=inventory,
        registrar=registrar,
        leader_worker_sets=sets,
        refusals=refusals,
        since=since,
    )


def _gateways(settings: Settings, client: Client, chance: Callable[[], float]) -> Gateways | None:
    if not settings.gateway_namespace:
        return None
    return Gateways(client, settings.gateway_namespace, chance)


def _registrar(
    settings: Settings, client: Client, store: Store, gateways: Gateways | None, again: Callable[[Key], None]
) -> Registrar | None:
    """None where nothing of the whole cluster may be written."""
    if settings.watch_namespace is not None:
        return None
    return Registrar(client, store, gateways, settings.gateway_namespace, again=again)


def _no_cluster() -> MetricsApi:
    return MetricsApi(cluster=False)


def _one_namespace(_: Key) -> Nodes:
    return ONE_NAMESPACE


def _awake_or_asleep() -> float:
    """Seconds; also those while the machine is suspended, when the monotonic clock stands still and others' do not."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _now() -> datetime:
    return datetime.now(UTC)


async def _first(*racers: Coroutine[Any, Any, Any]) -> int:
    """Run all until one ends, stop the others, and say which one it was. One that broke down is logged.

    When the lead is lost the work must stop, and when the work breaks down the lead must go to another process.
    """
    tasks = [asyncio.create_task(racer) for racer in racers]
    done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    for task in done:
        if (error := task.exception()) is not None:
            log.error("ending: %s", error, exc_info=error)
    return tasks.index(next(task for task in tasks if task in done))


async def _release(lease: Lease) -> None:
    """Let go, so that the next one leads at once; when that fails it leads as soon as the lease has run out."""
    try:
        async with asyncio.timeout(3):
            await lease.release()
    except (ClusterError, TimeoutError) as error:
        log.warning("the lease runs out by itself: %s", error or "timed out")
