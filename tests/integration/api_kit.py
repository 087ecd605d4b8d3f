"""The API server, asked and watched without a program for each question: what hundreds of objects need.

`Nodes` stands in for all kubelets of a namespace, `Sight` sees every version of its LLMDeployments.
"""

import asyncio
import base64
import contextlib
import json
import ssl
import tempfile
import threading
import time
from pathlib import Path

import aiohttp
import yaml

GROUPS = {
    "llmdeployments": "/apis/moorage.dev/v1alpha1",
    "controllerrevisions": "/apis/apps/v1",
    "deployments": "/apis/apps/v1",
    "poddisruptionbudgets": "/apis/policy/v1",
    "services": "/api/v1",
    "pods": "/api/v1",
    "events": "/api/v1",
    "leases": "/apis/coordination.k8s.io/v1",
}
CHILDREN = ("controllerrevisions", "deployments", "poddisruptionbudgets", "services", "pods")
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
NOT_FOUND, TOO_MANY = 404, 429
NO_LIMIT = aiohttp.ClientTimeout(total=None)


def address(namespace, plural, name="", sub=""):
    """Where the API server keeps it."""
    return "/".join(part for part in (GROUPS[plural], "namespaces", namespace, plural, name, sub) if part)


def admin(kubeconfig, *, certificate=True):
    """The server of a kubeconfig and how to speak with it; without `certificate` as nobody in particular."""
    config = yaml.safe_load(Path(kubeconfig).read_text())
    user, cluster = config["users"][0]["user"], config["clusters"][0]["cluster"]
    tls = ssl.create_default_context(cadata=_decoded(cluster["certificate-authority-data"]))
    if certificate:
        with tempfile.NamedTemporaryFile("w") as pair:
            pair.write(_decoded(user["client-certificate-data"]) + _decoded(user["client-key-data"]))
            pair.flush()
            tls.load_cert_chain(pair.name)
    return cluster["server"], tls


def _decoded(data):
    return base64.b64decode(data).decode()


class Background:
    """An event loop in a thread of its own."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def run(self, work, seconds=30):
        return self.begin(work).result(seconds)

    def begin(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def close(self):
        self.run(self._cut())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    async def _cut(self):
        """End what connections are left; a closed one ends in a later turn of the loop only."""
        for transport in tuple(self.loop._transports.values()):
            transport.abort()
        await asyncio.sleep(0.1)


class RefusedError(Exception):
    """The API server said no."""

    def __init__(self, status, said):
        super().__init__(f"{status} {said}")
        self.status = status


class Api(Background):
    """Requests as the administrator. `errors` are those of work in the background; nobody waits for it."""

    def __init__(self, kubeconfig):
        super().__init__()
        self.server, tls = admin(kubeconfig)
        self.errors, self.tasks = [], set()
        self.run(self._open(tls))

    async def _open(self, tls):
        connector = aiohttp.TCPConnector(ssl=tls, limit=0)
        self.session = aiohttp.ClientSession(connector=connector, read_bufsize=2**22, timeout=NO_LIMIT)

    def close(self):
        self.run(self._shut())
        super().close()
        assert not self.errors, self.errors

    async def _shut(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.session.close()

    def __call__(self, method, path, body=None, kind="application/json", **params):
        return self.run(self.ask(method, path, body, kind, **params))

    def items(self, namespace, plural, selector=""):
        return self("GET", address(namespace, plural), labelSelector=selector)["items"]

    def together(self, requests):
        """Many at once; each is the arguments of one."""

        async def all_of_them():
            return await asyncio.gather(*(self.ask(*one) for one in requests))

        return self.run(all_of_them(), 120)

    async def ask(self, method, path, body=None, kind="application/json", **params):
        params |= {"fieldManager": "person", "force": "true"} if kind == APPLY else {}
        data, headers = None if body is None else json.dumps(body), {"content-type": kind}
        url = self.server + path
        async with self.session.request(method, url, data=data, params=params, headers=headers) as answer:
            said = await answer.text()
            if not answer.ok:
                raise RefusedError(answer.status, said)
            return json.loads(said)

    def follow(self, path, heard, selector=""):
        """Tell `heard` (in the background) of each object that there is, and of each event about one."""
        self.loop.call_soon_threadsafe(self.spawn, self._follow(path, heard, {"labelSelector": selector}))

    async def _follow(self, path, heard, selected):
        while True:
            try:
                listed = await self.ask("GET", path, **selected)
            except RefusedError as error:
                if error.status != TOO_MANY:  # it has just come up, and reads what there is
                    raise
                await asyncio.sleep(0.2)
                continue
            for item in listed["items"]:
                heard("LISTED", item)
            since = {"watch": "1", "resourceVersion": listed["metadata"]["resourceVersion"]}
            with contextlib.suppress(aiohttp.ClientError):
                async with self.session.get(self.server + path, params=selected | since) as stream:
                    await self._hear(stream, heard)

    @staticmethod
    async def _hear(stream, heard):
        async for line in stream.content:
            event = json.loads(line)
            if not stream.ok or event["type"] == "ERROR":
                return
            heard(event["type"], event["object"])

    def spawn(self, work):
        """Begin work from within the background; what it fails with is in `errors`."""
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task):
        self.tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and getattr(error, "status", None) != NOT_FOUND:  # what it was about went meanwhile
            self.errors.append(error)


class Nodes:
    """Every pod of a namespace becomes ready as soon as it is there."""

    def __init__(self, api, namespace, status):
        self.api, self.namespace, self.status = api, namespace, status
        api.follow(address(namespace, "pods"), self._heard, "moorage.dev/deployment")

    def _heard(self, kind, pod):
        gone = kind == "DELETED" or "deletionTimestamp" in pod["metadata"]
        if not gone and not pod["status"].get("conditions"):
            path = address(self.namespace, "pods", pod["metadata"]["name"], "status")
            self.api.spawn(self.api.ask("PATCH", path, {"status": self.status}, MERGE))


class Sight:
    """Every version of a namespace's LLMDeployments as it comes.

    `latest` by name; `rested` says when each (name, generation) was first at rest; `wrong` is what `check` says.
    """

    def __init__(self, api, namespace, check=lambda _: None):
        self.latest, self.rested, self.wrong, self.count, self.check = {}, {}, [], 0, check
        api.follow(address(namespace, "llmdeployments"), self._heard)

    def _heard(self, kind, one):
        name = one["metadata"]["name"]
        self.count += 1
        if kind == "DELETED":
            self.latest.pop(name, None)
            return
        self.latest[name] = one
        if rests(one):
            self.rested.setdefault((name, one["metadata"]["generation"]), time.monotonic())
        if (wrong := self.check(one)) is not None:
            self.wrong.append(wrong)


def rests(one):
    """Whether an LLMDeployment says that what it asks for is what serves."""
    status, generation = one.get("status", {}), one["metadata"]["generation"]
    ready = next((each for each in status.get("conditions", ()) if each["type"] == "Ready"), {})
    if ready.get("observedGeneration") != generation or ready["reason"] not in {"Serving", "ScaledToZero"}:
        return False
    pointers, rows = status.get("revision", {}), status.get("revisions", ())
    images = {row["number"]: row["image"] for row in rows}
    right = images.get(pointers.get("stable")) == one["spec"]["engine"]["image"] or "rollbackTo" in one["spec"]
    return right and "candidate" not in pointers
