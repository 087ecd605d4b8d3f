"""kopf, which hears what happens in the cluster and passes it on. It decides nothing.

Only `on.event` handlers: they need no finalizer, no annotation and no write. kopf gets a thread and an event loop of
its own, because it takes over the signals of the loop that it runs in, and when it ends it cancels every task there
that it does not know.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import kopf
import uvloop

from moorage_operator.cluster.client import PAGE
from moorage_operator.cluster.resources import CHILDREN, DEPLOYMENTS, LEASES, Resource
from moorage_operator.cluster.slim import slim
from moorage_operator.manifest import Manifest

Deliver: TypeAlias = Callable[[str, Manifest], None]

STOP_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 0.2
"""After which kopf lets go of an object of which it hears nothing. It holds all of it until then, and at a start it
hears of all objects at once."""
RETRIES: Final = (0.5, 1, 2, 4, 4, 4, 4, 4)
"""Seconds between kopf's tries of a request. After the last one it begins anew, or it ends and is started again."""
_IDENTITY: Any = "moorage-operator"  # kopf's type for it is private
"""Kopf's name among peers, of which there are none. Without one it asks for the user's, and a container's has none."""
LISTED: Final = "LISTED"
"""The type of the events that a watch begins with, at each start and when it was too far behind (410): one for each
object that there is, so none where there is none."""


class EarError(Exception):
    """kopf ended; without it nothing is heard."""


@dataclass
class Ear:
    """Watches, and what they are for.

    Args:
        deliver: called in the loop that `listen` runs in, with the event's type (`DELETED`, `LISTED` or other) and what
            is kept of the object.
        login: opens connections to the API server in the loop that it is called in, once for each start of kopf.
        namespace: the only one to listen to; None: all.
        heartbeat: the name of the Lease that is renewed every few seconds, so that silence means deafness.
    """

    deliver: Deliver
    login: Callable[[], kopf.AiohttpSession]
    namespace: str | None
    heartbeat: str
    _thread: "_KopfThread | None" = None

    async def listen(self) -> None:
        """Listen until cancelled.

        Raises:
            EarError: kopf ended by itself, as it does on some errors of a watch; start it again.
        """
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._thread = _KopfThread(self, asyncio.get_running_loop(), ended)
        self._thread.start()
        try:
            await ended
        finally:
            self._thread.stop()

    async def closed(self) -> None:
        """Wait until kopf has ended, which takes it some seconds after `listen` was cancelled."""
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, STOP_SECONDS)

    def registry(self, deliver: Deliver) -> kopf.OperatorRegistry:
        """Handlers for everything that is watched; nothing of kopf's own."""
        registry = kopf.OperatorRegistry()

        async def heard(event: Any, **_: Any) -> None:
            deliver(event["type"] or LISTED, slim(event["object"]))

        opened = False

        async def login(**_: Any) -> kopf.AiohttpSession:
            nonlocal opened
            if opened:
                raise EarError("the API server refuses the credentials, also those that have just been read")
            opened = True
            return self.login()

        # Whatever fails ends kopf, which is started again; it would wait for a minute before it tries once more.
        kopf.on.login(registry=registry, errors=kopf.ErrorsMode.PERMANENT)(login)
        for resource in (DEPLOYMENTS, *CHILDREN, LEASES):
            kopf.on.event(resource.api_version, resource.plural, registry=registry, id=resource.plural)(heard)
        return registry

    def settings(self) -> kopf.OperatorSettings:
        """No writes of kopf's own, and watches that notice when they are cut."""
        settings = kopf.OperatorSettings()
        settings.posting.enabled = False
        settings.peering.standalone = True
        settings.persistence.diffbase_storage = _NoDifferences()
        settings.scanning.disabled = True  # kinds and namespaces are fixed: no need to list definitions or namespaces
        # Thousands of pods at once would take memory that Python never gives back. Where the server forgets in between
        # where it was (410, after minutes), kopf ends, and is started again.
        settings.watching.chunk_size = PAGE
        settings.queueing.idle_timeout = IDLE_SECONDS
        settings.watching.server_timeout = 240
        settings.watching.client_timeout = 250
        settings.watching.connect_timeout = settings.networking.connect_timeout = 10
        # Kopf's own would let a list hang for 5 minutes, and wait for up to 21 s once the API server is back.
        settings.networking.request_timeout = 30
        settings.networking.error_backoffs = RETRIES
        for resource in CHILDREN:
            settings.watching.label_selectors[_selector(resource)] = resource.selector
        settings.watching.field_selectors[_selector(LEASES)] = f"metadata.name={self.heartbeat}"
        return settings


class _NoDifferences(kopf.DiffBaseStorage):
    """Kopf copies each object of each event to find out what has changed, which `on.event` handlers never ask.

    It took three quarters of the time that an event costs.
    """

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> kopf.BodyEssence:  # noqa: ARG002 - kopf's signature
        """Nothing of the object is compared."""
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """Nothing was stored."""

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Nothing is stored."""


def _selector(resource: Resource) -> tuple[str, str]:
    return resource.api_version, resource.plural


class _KopfThread(threading.Thread):
    """Runs kopf in a loop of its own. A daemon, so that a kopf that hangs cannot keep the process."""

    def __init__(self, ear: Ear, home: asyncio.AbstractEventLoop, ended: "asyncio.Future[None]") -> None:
        super().__init__(name="kopf", daemon=True)
        self._ear = ear
        self._home = home
        self._ended = ended
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked: asyncio.Event | None = None

    def run(self) -> None:
        """Run until stopped or broken, and say which."""
        failure: BaseException | None = None
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._main())
        except Exception as cause:  # noqa: BLE001 - whatever ends kopf, the supervisor must hear of it
            failure = cause
        self._home_hears(failure)

    def stop(self) -> None:
        """Ask kopf to end."""
        if self._loop is not None and self._asked is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._asked.set)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._asked = asyncio.Event()
        namespaces = [self._ear.namespace] if self._ear.namespace else []
        tasks = await kopf.spawn_tasks(
            registry=self._ear.registry(self._deliver),
            settings=self._ear.settings(),
            identity=_IDENTITY,
            clusterwide=not namespaces,
            namespaces=namespaces,
            stop_flag=self._asked,
        )
        ours = asyncio.current_task()
        running = asyncio.create_task(kopf.run_tasks(tasks, ignored={ours} if ours is not None else set()))
        # With the first of them all end, which takes kopf seconds, or for ever: a watch that waits for credentials when
        # it is told to go takes no notice. Nothing is heard from then on, so it is begun anew meanwhile.
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        self._home_hears(next((cause for one in done if (cause := _failure(one)) is not None), None))
        await running

    def _home_hears(self, cause: BaseException | None) -> None:
        error = EarError("kopf ended without a word" if cause is None else f"{type(cause).__name__}: {cause}")
        error.__cause__ = cause
        if not self._home.is_closed():
            self._home.call_soon_threadsafe(self._tell, error)

    def _deliver(self, kind: str, manifest: Manifest) -> None:
        self._home.call_soon_threadsafe(self._ear.deliver, kind, manifest)

    def _tell(self, error: BaseException) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)


def _failure(task: "asyncio.Task[None]") -> BaseException | None:
    return None if task.cancelled() else task.exception()


def quiet() -> None:
    """Kopf tells at INFO of each event, and warns that it leaves the signals alone, which is what we want."""
    logging.getLogger("kopf").setLevel(logging.WARNING)
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
