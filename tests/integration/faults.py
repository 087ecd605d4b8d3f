"""A proxy between the operator and a real API server that does what networks and API servers do on bad days."""

import asyncio
import contextlib
import json

import aiohttp
from aiohttp import web

from tests.integration.api_kit import GROUPS, admin
from tests.integration.operator_kit import Proxy

UNAUTHORIZED = 401


def stream_error(code, reason, message):
    """What an API server says within a watch when it does not go on."""
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return json.dumps({"type": "ERROR", "object": {**status, "code": code, "reason": reason, "message": message}})


class Watch:
    """An open watch: its kind's plural, and how to end it."""

    def __init__(self, request, stream):
        self.plural = request.path.rsplit("/", 1)[-1]
        self.request, self.stream = request, stream
        self.ended, self.held = asyncio.Event(), False


class FaultProxy(Proxy):
    """A Proxy at which a test sets what goes wrong, for as long as it is set.

    `drops(plural, line)`: whether an event of a watch is lost.
    `lags(plural)`: seconds that events of a kind come late, in order.
    `instead(request)`: a coroutine whose answer, unless it is None, is given in place of the API server's.
    `as_caller`: pass on the caller's token in place of the administrator's certificate; `turned_away` counts 401s.
    `halting`: seconds by which the rest of a 401 comes later to each watch than to the one before.
    """

    def __init__(self, kubeconfig, *, as_caller=False):
        self.drops = lambda _plural, _line: False
        self.lags = lambda _plural: 0.0
        self.instead = passed_on
        self.as_caller, self.turned_away = as_caller, 0
        self.halting, self.halted = 0.0, 0
        self.watches, self.dropped = set(), 0
        self.listed, self.memory, self.fresh = set(), {}, asyncio.Event()
        self.fresh.set()
        self.kubeconfig = kubeconfig
        super().__init__(kubeconfig)

    async def _open(self, tls):
        return await super()._open(admin(self.kubeconfig, certificate=False)[1] if self.as_caller else tls)

    # What may be done to it from a test.

    def hang_up(self, said="", *, hard=False):
        """End all watches after a last word: as a server ends them, or (hard) by cutting the connections."""
        self.run(self._hang_up(said.encode(), hard=hard))

    def hold(self, *plurals):
        """Nothing comes any more over the watches of these kinds (all, by default) that are open now."""
        for watch in tuple(self.watches):
            if not plurals or watch.plural in plurals:
                watch.held = True

    def begin_outage(self):
        """Nobody answers, and all connections are cut; until `come_back`."""
        self.run(self._leave())

    def remember(self):
        """This is what an API server that lags behind will tell."""
        self.run(self._remember())

    def fall_behind(self):
        """From now on all is as it was when it was remembered, and watches tell nothing."""
        self.run(self._become(fresh=False))

    def catch_up(self):
        """It has caught up: watches tell all that has happened since."""
        self.run(self._become(fresh=True))

    # How it is done.

    async def _hang_up(self, said, *, hard):
        for watch in tuple(self.watches):
            with contextlib.suppress(ConnectionError):
                await watch.stream.write(said)
            if hard:
                watch.request.transport.abort()
            watch.ended.set()

    async def _leave(self):
        for site in tuple(self.runner.sites):
            await site.stop()
        for connection in tuple(self.runner.server.connections):
            if connection.transport is not None:
                connection.transport.abort()

    async def come_back(self):
        """The end of an outage: it answers at the same address again."""
        await web.TCPSite(self.runner, "127.0.0.1", int(self.url.rsplit(":", 1)[1])).start()

    async def _remember(self):
        for path in tuple(self.listed):
            async with self.session.get(self.server + path) as answer:
                self.memory[path] = await answer.read()

    async def _become(self, *, fresh):
        if fresh:
            self.fresh.set()
        else:
            self.fresh.clear()

    async def _pass_on(self, request):
        answer = await self.instead(request) or self._from_memory(request)
        if answer is not None:
            return answer
        answer = await super()._pass_on(request)
        self.turned_away += answer.status == UNAUTHORIZED
        if request.method == "GET" and request.path.rsplit("/", 1)[-1] in GROUPS and "watch" not in request.query:
            self.listed.add(request.path_qs)
        return answer

    def _from_memory(self, request):
        """What an API server that lags behind answers; it lags in what it serves from its cache."""
        if self.fresh.is_set() or request.method != "GET" or "/leases" in request.path or "watch" in request.query:
            return None
        if request.path_qs in self.memory:
            return web.Response(body=self.memory[request.path_qs], content_type="application/json")
        if request.query.get("resourceVersion") != "0":
            return None  # it wants to know how things are now
        collection, name = request.path.rsplit("/", 1)
        listed = next(json.loads(body) for path, body in self.memory.items() if path.split("?")[0] == collection)
        identity = {"apiVersion": listed["apiVersion"], "kind": listed["kind"].removesuffix("List")}
        found = next((one for one in listed["items"] if one["metadata"]["name"] == name), None)
        return web.Response(status=404) if found is None else web.json_response({**identity, **found})

    async def _stream(self, request, answer, stream):
        if answer.status == UNAUTHORIZED:
            self.halted += 1
            await asyncio.sleep(self.halting * self.halted)
        watch = Watch(request, stream)
        self.watches.add(watch)
        work = [asyncio.create_task(self._pump(watch, answer)), asyncio.create_task(watch.ended.wait())]
        try:
            await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.watches.discard(watch)
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)

    async def _pump(self, watch, answer):
        arrived = asyncio.Queue()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._take(answer, arrived))
            while (event := await arrived.get()) is not None:
                await self._give(watch, *event)

    async def _take(self, answer, arrived):
        begun = b""
        with contextlib.suppress(aiohttp.ClientError):
            async for piece in answer.content.iter_any():
                *whole, begun = (begun + piece).split(b"\n")
                for line in whole:
                    arrived.put_nowait((self.loop.time(), line + b"\n"))
        arrived.put_nowait(None)

    async def _give(self, watch, when, line):
        if watch.plural != "leases":
            await self.fresh.wait()
            await asyncio.sleep(max(0.0, when + self.lags(watch.plural) - self.loop.time()))
        if watch.held or self.drops(watch.plural, line):
            self.dropped += 1
        else:
            await watch.stream.write(line)


async def passed_on(_request):
    """Nothing in its place."""
