"""List and watch against an API server that fails in every way that one can."""

import asyncio
import json
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration

from moorage_gateway.api_server import ApiServer
from moorage_gateway.watch import Resource, Timing, Watcher

PATH = "/api/v1/pods"
QUICK = Timing(watch=30, grace=10, resync=600, backoff=0.001, backoff_most=0.01)


@dataclass
class FakeApi:
    """Serves one resource, with a scripted fault for each of its next requests; then as a real one does."""

    list_faults: list[str] = field(default_factory=list)
    watch_faults: list[str] = field(default_factory=list)
    queries: list[dict[str, str]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    page: int = 500

    def __post_init__(self):
        self.objects, self.log, self.version, self.changed = {}, [], 0, asyncio.Condition()

    async def start(self, port=0):
        app = web.Application()
        app.router.add_get(PATH, self._get)
        self._runner = web.AppRunner(app, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]

    async def stop(self):
        await self._runner.cleanup()

    async def put(self, name, value):
        kind = "MODIFIED" if name in self.objects else "ADDED"
        await self._event(kind, name, value)
        self.objects[name] = self.log[-1][1]["object"]

    async def remove(self, name):
        await self._event("DELETED", name, self.objects.pop(name)["value"])

    async def _event(self, kind, name, value):
        async with self.changed:
            self.version += 1
            meta = {"name": name, "resourceVersion": str(self.version)}
            self.log.append((self.version, {"type": kind, "object": {"metadata": meta, "value": value}}))
            self.changed.notify_all()

    async def _get(self, request):
        query = dict(request.query)
        self.queries.append(query)
        self.authorizations.append(request.headers.get("authorization"))
        return await (self._watch(request, query) if query.get("watch") else self._list(query))

    async def _list(self, query):
        if self.list_faults:
            return _fault(self.list_faults.pop(0))
        start = int(query.get("continue") or 0)
        found = [self.objects[name] for name in sorted(self.objects)]
        end = start + min(self.page, int(query["limit"]))
        meta = {"resourceVersion": str(self.version), "continue": str(end) if end < len(found) else ""}
        return web.json_response({"items": found[start:end], "metadata": meta})

    async def _watch(self, request, query):
        fault = self.watch_faults.pop(0) if self.watch_faults else ""
        if fault in ANSWERS:
            return _fault(fault)
        response = web.StreamResponse()
        await response.prepare(request)
        if fault:
            await STREAMS[fault](response, request)
            return response
        sent = int(query["resourceVersion"])
        while True:
            async with self.changed:
                while self.version <= sent:
                    await self.changed.wait()
            for version, event in self.log:
                if version > sent:
                    await response.write(json.dumps(event).encode() + b"\n")
            sent = self.version


ANSWERS = {"410": 410, "500": 500, "429": 429, "403": 403, "401": 401}


def _fault(name):
    if name == "no JSON":
        return web.Response(body=b"<html>")
    return web.json_response(
        {"kind": "Status", "code": ANSWERS[name], "message": f"fault {name}"}, status=ANSWERS[name]
    )


async def _ends(_response, _request):
    pass


async def _aborts(_response, request):
    request.transport.abort()


async def _truncates(response, _request):
    await response.write(b'{"type":"ADDED","object":{"meta')


async def _aborts_in_line(response, request):
    await response.write(b'{"type":"ADDED","object":{"meta')
    request.transport.abort()


async def _garbage(response, _request):
    await response.write(b"\x00\xff\n")


async def _no_object(response, _request):
    await response.write(b"[]\n")


async def _error(response, code):
    status = {"kind": "Status", "code": code, "message": "too old resource version"}
    await response.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")


async def _error_410(response, _request):
    await _error(response, 410)


async def _error_500(response, _request):
    await _error(response, 500)


async def _stalls(_response, _request):
    await asyncio.Event().wait()


STREAMS = {
    "ends": _ends,
    "aborts": _aborts,
    "truncated line": _truncates,
    "aborts within a line": _aborts_in_line,
    "garbage": _garbage,
    "no object": _no_object,
    "410 event": _error_410,
    "500 event": _error_500,
}


class Mirror:
    """A sink that is a dictionary."""

    def __init__(self):
        self.now, self.lists = {}, 0

    def replace(self, objects):
        self.lists += 1
        self.now = {obj["metadata"]["name"]: obj["value"] for obj in objects}

    def put(self, obj):
        self.now[obj["metadata"]["name"]] = obj["value"]

    def remove(self, obj):
        del self.now[obj["metadata"]["name"]]


@pytest.fixture
async def api():
    fake = FakeApi()
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
def mirror():
    return Mirror()


@pytest.fixture
async def start(api, mirror):
    """Start the watcher, with its timing."""
    server = ApiServer(Configuration(host=f"http://127.0.0.1:{api.port}"))
    tasks = []

    async def begin(timing=QUICK, selector=""):
        watcher = Watcher(server, Resource(PATH, selector), mirror, timing)
        tasks.append(asyncio.create_task(watcher.run()))

    yield begin
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await server.aclose()


async def test_what_is_there_and_what_changes_arrives(api, mirror, start, until):
    await api.put("a", 1)
    await start(selector="x=y")
    await until(lambda: mirror.now == {"a": 1})
    await api.put("b", 2)
    await api.put("a", 3)
    await until(lambda: mirror.now == {"a": 3, "b": 2})
    await api.remove("a")
    await until(lambda: mirror.now == {"b": 2})
    assert mirror.lists == 1
    assert {query["labelSelector"] for query in api.queries} == {"x=y"}


async def test_a_long_list_comes_in_pages(api, mirror, start, until):
    api.page = 3
    for n in range(10):
        await api.put(f"n{n}", n)
    await start()
    await until(lambda: len(mirror.now) == 10)
    assert mirror.lists == 1


async def test_objects_of_any_size_pass(api, mirror, start, until):
    await start()
    await api.put("big", "x" * 6_000_000)
    await until(lambda: "big" in mirror.now)
    assert len(mirror.now["big"]) == 6_000_000


async def test_a_bookmark_moves_the_version_and_nothing_else(api, mirror, start, until):
    async def bookmark(response, _request):
        bookmarked = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "77"}}}
        await response.write(json.dumps(bookmarked).encode() + b"\n")

    STREAMS["bookmark"] = bookmark
    api.watch_faults = ["bookmark"]
    api.version = 3
    await start()
    await until(lambda: any(query.get("resourceVersion") == "77" for query in api.queries))
    assert mirror.now == {}
    assert mirror.lists == 1


@pytest.mark.parametrize("fault", [*ANSWERS, *STREAMS])
async def test_after_any_fault_of_a_watch_the_table_is_right(api, mirror, start, until, fault):
    api.watch_faults = [fault] * 3
    await api.put("a", 1)
    await start()
    await until(lambda: mirror.now == {"a": 1})
    await api.remove("a")
    await api.put("b", 2)
    await until(lambda: mirror.now == {"b": 2} and not api.watch_faults)
    await api.put("c", 3)
    await until(lambda: mirror.now == {"b": 2, "c": 3})
    assert mirror.lists == (4 if "410" in fault else 1)


@pytest.mark.parametrize("fault", [*ANSWERS, "no JSON"])
async def test_after_any_fault_of_a_list_the_table_is_right(api, mirror, start, until, fault):
    api.list_faults = [fault] * 3
    await api.put("a", 1)
    await start()
    await until(lambda: mirror.now == {"a": 1})


async def test_a_version_that_is_gone_in_the_middle_of_a_list_starts_it_anew(api, mirror, start, until):
    api.page = 1
    await api.put("a", 1)
    await api.put("b", 2)
    original, calls = api._list, []

    async def gone_on_page_two(query):
        calls.append(query)
        return _fault("410") if len(calls) == 2 else await original(query)

    api._list = gone_on_page_two
    await start()
    await until(lambda: mirror.now == {"a": 1, "b": 2})
    assert mirror.lists == 1


async def test_a_watch_that_falls_silent_is_opened_again(api, mirror, start, until):
    STREAMS["stalls"] = _stalls
    api.watch_faults = ["stalls"]
    await start(Timing(watch=1, grace=-0.9, resync=600, backoff=0.001, backoff_most=0.01))
    await until(lambda: not api.watch_faults)
    await api.put("a", 1)
    await until(lambda: mirror.now == {"a": 1})
    assert mirror.lists == 1


async def test_everything_is_listed_again_in_time_though_no_watch_failed(api, mirror, start, until):
    await start(Timing(watch=30, grace=-29.98, resync=0.05, backoff=0.001, backoff_most=0.01))
    await until(lambda: mirror.lists >= 3)


async def test_without_an_api_server_the_last_table_stays_and_the_next_one_is_found(api, mirror, start, until, caplog):
    await api.put("a", 1)
    await start()
    await until(lambda: mirror.now == {"a": 1})
    await api.stop()
    await until(lambda: len(caplog.records) >= 5)  # it has failed again and again
    assert mirror.now == {"a": 1}
    await api.remove("a")
    await api.put("b", 2)
    await api.start(api.port)
    await until(lambda: mirror.now == {"b": 2})


async def test_a_watch_that_is_always_closed_at_once_is_no_tight_loop(api, mirror, start, until):
    STREAMS["ends"] = _ends
    api.watch_faults = ["ends"] * 10_000
    await start(Timing(watch=30, grace=10, resync=600, backoff=0.02, backoff_most=10))
    await until(lambda: len(api.queries) >= 4)
    pauses = 0.02 * (1 + 2 + 4) / 2
    loop, began = asyncio.get_running_loop(), asyncio.get_running_loop().time()
    await until(lambda: len(api.queries) >= 7)
    assert loop.time() - began >= pauses
