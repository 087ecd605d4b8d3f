"""One server from its start to its exit code: HTTP listener, engine process, signals."""

import asyncio
import gc
import os
import signal
import socket
import tempfile
from collections.abc import Sequence
from typing import Any

from starlette.types import ASGIApp

from moorage_runtime.engine.messages import Failed, FollowerLeaves, Joined, Loading, Started, Stats
from moorage_runtime.server.command_line import PROGRAM
from moorage_runtime.server.engine_client import EngineClient
from moorage_runtime.server.engine_process import EngineProcess, describe_exit, reap_orphans
from moorage_runtime.server.gpu import GpuMonitor
from moorage_runtime.server.listener import HttpServer
from moorage_runtime.server.metrics import Metrics
from moorage_runtime.server.model_card import ModelCard
from moorage_runtime.server.options import Options
from moorage_runtime.server.progress import Progress
from moorage_runtime.server.service import Service
from moorage_runtime.server.state import ServerState
from moorage_runtime.server.watchdog import Watchdog
from moorage_runtime.termination import report_failure

# After the engine's end, clients get their error events; one that does not read is not waited for longer.
_FLUSH_SECONDS = 5.0
# What the engine sent before it ended may still be on its way through the socket.
_LAST_WORDS_SECONDS = 0.5
# In a pod the pause container is it, since processes are shared there; with `docker run` we are, and have its duties.
_INIT = 1
_REAP_SECONDS = 5.0


class Server:
    """Owns everything that must be given back at the end."""

    def __init__(
        self, options: Options, card: ModelCard, command: Sequence[str], watchdog: Watchdog | None = None
    ) -> None:
        """`command`: the engine's command line, without the address of the socket."""
        self._options = options
        self._card = card
        self._command = command
        self._state = ServerState()
        self._metrics = Metrics(options.served_name)
        self._progress = Progress()
        self._failure: Failed | None = None
        self._said_why = asyncio.Event()
        self._port = options.port
        self._stop = asyncio.Event()
        self._abort = asyncio.Event()
        self._signalled = False
        self._watchdog = watchdog or Watchdog()
        self._lost = asyncio.Event()
        self._why_lost = ""

    def loading(self, event: Loading) -> None:
        """The engine is on its way."""
        self._state.loading(event.phase, event.message)
        self._progress.show(event.phase, event.fraction, event.message)

    def started(self, event: Started) -> None:
        """The engine has generated its first token."""
        self._state.ready(event)
        self._progress.ready(event, self._options, self._port, chats=self._card.template is not None)

    def joined(self, event: Joined) -> None:
        """The engine computes its part of what another one leads."""
        self._state.joined(event.rank, event.ranks)
        self._progress.joined(event)

    def leaves(self, event: FollowerLeaves) -> None:
        """Another pod of the group was told to end, and this one ends with it as if it was told so itself."""
        self._progress.leaves(event)
        self._stop.set()

    def failed(self, event: Failed) -> None:
        """The engine says why it ends: nothing more comes of it, however long its end takes."""
        self._failure = event
        self._said_why.set()

    def stepped(self, stats: Stats) -> None:
        """The engine has made a step."""
        self._watchdog.stepped(stats.step_seconds)
        self._metrics.stepped(stats)

    def lost(self, why: str) -> None:
        """The engine can no longer be talked to, or answers no more: `_live` gives it up."""
        self._why_lost = why
        self._lost.set()

    async def run(self, listener: socket.socket) -> int:
        """Serve until a signal or the engine's end; the exit code."""
        self._port = listener.getsockname()[1]
        self._progress.tick()
        gc.collect()
        gc.freeze()  # the vocabulary lives as long as the process: no collection need visit it again
        gpus = GpuMonitor()
        gpus.start()
        with tempfile.TemporaryDirectory(prefix="moorage-") as folder:
            address = f"ipc://{folder}/engine.sock"
            client = EngineClient(address, self)
            engine = EngineProcess([*self._command, "--socket", address])
            self._take_signals(engine)
            http = HttpServer(self._app(client, gpus))
            tasks = [asyncio.create_task(http.serve(sockets=[listener])), asyncio.create_task(client.receive())]
            tasks.append(asyncio.create_task(self._watch(client)))
            try:
                return await self._live(engine, client, tasks)
            finally:
                http.should_exit = True
                client.shutdown()
                await engine.end()
                await asyncio.wait(tasks[:1])
                for task in tasks[1:]:
                    task.cancel()
                await asyncio.wait(tasks[1:])
                client.close()
                gpus.stop()
                self._progress.close()

    def _app(self, client: EngineClient, gpus: GpuMonitor) -> ASGIApp:
        # FastAPI loads while the engine starts.
        from moorage_runtime.server.app import create_app  # noqa: PLC0415 - see above
        from moorage_runtime.server.bodies import Bodies  # noqa: PLC0415 - see above

        service = Service(
            card=self._card,
            client=client,
            state=self._state,
            metrics=self._metrics,
            options=self._options,
        )
        return create_app(service, gpus, Bodies(self._state, self._options.max_body, self._options.body_seconds))

    async def _live(self, engine: EngineProcess, client: EngineClient, tasks: Sequence[asyncio.Task[None]]) -> int:
        """Wait for what comes first: a signal, the engine's end or silence, or a fault of the server itself."""
        stopped, lost = asyncio.create_task(self._stop.wait()), asyncio.create_task(self._lost.wait())
        ended = asyncio.create_task(self._end_of(engine))
        await _first([stopped, lost, ended, *tasks])
        if self._stop.is_set():
            return await self._drain(engine, client, lost, ended)
        for task in (stopped, lost, ended):
            task.cancel()
        for task in tasks:
            if task.done():
                task.result()
        if self._lost.is_set():
            return await self._give_up("EngineFailed", self._why_lost, client)
        return await self._bury(engine, client)

    async def _end_of(self, engine: EngineProcess) -> None:
        """Wait until the engine says why it ends, or ends without a word."""
        said = asyncio.create_task(self._said_why.wait())
        await _first([said, engine.exited])
        said.cancel()

    async def _drain(
        self, engine: EngineProcess, client: EngineClient, lost: asyncio.Task[Any], ended: asyncio.Task[Any]
    ) -> int:
        """Finish what runs, take nothing new. A second signal, or the engine's end or silence, cuts it short.

        So does the time that there is for it: whoever stops a server kills it some time after, in the middle of a word.
        What runs on a rank that has joined is what its leader has, who is told: it is over when the engine ends, whose
        time the leader counts.
        """
        joined = self._state.phase == "Joined"
        over, limit = (asyncio.Event().wait, None) if joined else (self._state.idle, self._options.drain_seconds)
        if joined:
            client.leave()
        self._state.drain()
        self._progress.draining(client.open_sequences)
        idle = asyncio.create_task(over())
        aborted = asyncio.create_task(self._abort.wait())
        in_time = await _first([idle, aborted, lost, ended], limit)
        complete, over_early = idle.done(), ended.done()
        for task in (idle, aborted, lost, ended):
            task.cancel()
        if not in_time:
            client.time_out()
            await self._flush()
        if complete or not in_time:
            return 0
        if over_early:
            return await self._bury(engine, client)
        if self._lost.is_set():
            return await self._give_up("EngineFailed", self._why_lost, client)
        client.fail("The server was told to stop at once.")
        await self._flush()
        return 1

    async def _bury(self, engine: EngineProcess, client: EngineClient) -> int:
        """The engine ends by itself; what it said last is the reason."""
        if self._failure is None and await engine.exited == 0 and self._options.engine.follows:
            return 0  # because its leader was told to stop
        await asyncio.wait([asyncio.create_task(self._said_why.wait())], timeout=_LAST_WORDS_SECONDS)
        if self._failure is None:
            return await self._give_up("EngineFailed", f"The engine {describe_exit(await engine.exited)}.", client)
        return await self._give_up(self._failure.reason, self._failure.message, client)

    async def _give_up(self, reason: str, message: str, client: EngineClient) -> int:
        """Say to everyone who waits, and to Kubernetes, why there is no answer; the exit code."""
        self._progress.close()
        self._state.fail(message)
        client.fail(message)
        report_failure(self._options.termination_log, PROGRAM, reason, message)
        await self._flush()
        return 1

    async def _watch(self, client: EngineClient) -> None:
        """See whether the engine makes steps while it has work."""
        while True:
            await asyncio.sleep(self._watchdog.look_seconds)
            self._progress.tick()
            match self._watchdog.look(has_work=client.open_sequences > 0):
                case "ok":
                    self._state.recovered()
                case "stuck":
                    self._state.stuck(self._silence(client))
                case "lost":
                    self._state.stuck(self._silence(client))
                    self.lost(self._silence(client))

    def _silence(self, client: EngineClient) -> str:
        return (
            f"The engine has finished no step for {self._watchdog.silence:.0f} s "
            f"while it had {client.open_sequences} sequences to compute."
        )

    async def _flush(self) -> None:
        """Let open requests write their errors."""
        await asyncio.wait([asyncio.create_task(self._state.idle())], timeout=_FLUSH_SECONDS)

    def _take_signals(self, engine: EngineProcess) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        if os.getpid() == _INIT:
            self._reap(loop, engine.pid)

    def _reap(self, loop: asyncio.AbstractEventLoop, engine: int) -> None:
        """Look for orphans every few seconds: SIGCHLD, which would tell, belongs to uvloop."""
        reap_orphans(engine)
        loop.call_later(_REAP_SECONDS, self._reap, loop, engine)

    def _on_signal(self) -> None:
        (self._abort if self._signalled else self._stop).set()
        self._signalled = True


async def _first(awaited: Sequence[asyncio.Future[Any]], seconds: float | None = None) -> bool:
    """Wait until one of them is done, whatever its result; False when that took longer than `seconds`."""
    done, _ = await asyncio.wait(awaited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    return bool(done)
