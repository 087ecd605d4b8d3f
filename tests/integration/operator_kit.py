"""The operator as a process, a proxy that counts its writes; kubelet and gateways are the test itself."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import aiohttp
from aiohttp import web

from moorage_api import names
from tests.integration.api_kit import MERGE, NO_LIMIT, NOT_FOUND, Background, RefusedError, address, admin
from tests.integration.loopback import own_addresses

READS = frozenset({"GET", "HEAD"})
HOP_HEADERS = frozenset({"connection", "transfer-encoding", "content-length", "host"})
FORBIDDEN = 403


class Proxy(Background):
    """Passes requests on to the API server as the administrator; `writes` are those carried out, without Leases.

    With `user` it passes them on as that user, with that user's rights; `refused` are those that it may not make.
    `after` may be set to a function that is called with each write once the API server has answered it and before the
    operator hears of that.
    """

    def __init__(self, kubeconfig, user=None):
        super().__init__()
        self.identity = {"Impersonate-User": user, "Impersonate-Group": "system:authenticated"} if user else {}
        self.refused = []
        self.writes = []
        self.after = None
        self.server, tls = admin(kubeconfig)
        self.url = self.run(self._open(tls))

    def close(self):
        self.run(self._close())
        super().close()

    async def _open(self, tls):
        connector = aiohttp.TCPConnector(ssl=tls, limit=0)
        self.session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        self.runner = web.ServerRunner(web.Server(self._pass_on, handler_cancellation=True), shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{self.runner.addresses[0][1]}"

    async def _close(self):
        await self.runner.cleanup()
        await self.session.close()

    async def _pass_on(self, request):
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_HEADERS}
        headers |= self.identity
        url = self.server + request.path_qs
        body = await request.read() or None
        async with self.session.request(request.method, url, data=body, headers=headers, timeout=NO_LIMIT) as answer:
            if answer.status == FORBIDDEN:
                self.refused.append((request.method, request.path))
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_HEADERS}
            if "watch" not in request.query:
                content = await answer.read()
                self._wrote(request, answer.status)
                return web.Response(status=answer.status, headers=kept, body=content)
            stream = web.StreamResponse(status=answer.status, headers=kept)
            await stream.prepare(request)
            await self._stream(request, answer, stream)
            return stream

    async def _stream(self, request, answer, stream):
        async for piece in answer.content.iter_any():
            await stream.write(piece)

    def _wrote(self, request, status):
        if request.method in READS or "/leases" in request.path or status >= 400:
            return
        self.writes.append((request.method, request.path.split("/namespaces/")[-1]))
        if self.after is not None:
            self.after(self.writes[-1])


def free_port():
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Operator:
    """`moorage-operator` in a process of its own, which looks after one namespace unless told otherwise."""

    folder: Path
    server: str
    namespace: str
    identity: str = "one"
    image: str = "moorage/runtime:1"
    resync: float = 300
    gateways: bool = False
    everywhere: bool = False
    """It looks after all namespaces."""
    token: str = ""
    port: int = field(default_factory=free_port)
    process: subprocess.Popen | None = None

    def log_in(self, token):
        """What it finds the next time that it reads its credentials."""
        cluster = {"name": "it", "cluster": {"server": self.server}}
        context = {"name": "it", "context": {"cluster": "it", "user": "it"}}
        user = {"name": "it", "user": {"token": token} if token else {}}
        config = {"clusters": [cluster], "contexts": [context], "users": [user], "current-context": "it"}
        written = self.folder / f"{self.identity}.new"
        written.write_text(json.dumps(config))
        return written.rename(self.folder / f"{self.identity}.kubeconfig")

    def start(self):
        config = self.log_in(self.token)
        with (self.folder / f"{self.identity}.log").open("a") as log:
            self.process = subprocess.Popen(
                [Path(sys.executable).with_name("moorage-operator"), *self._flags()],
                env={**os.environ, "KUBECONFIG": str(config)},
                stdout=log,
                stderr=log,
            )
        return self

    def _flags(self):
        return (
            f"--runtime-image={self.image}",
            f"--namespace={self.namespace}",
            f"--watch-namespace={'' if self.everywhere else self.namespace}",
            f"--identity={self.identity}",
            f"--port={self.port}",
            f"--resync-seconds={self.resync}",
            f"--gateway-namespace={self.namespace if self.gateways else ''}",
        )

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.terminate()

    def page(self, path):
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def answers(self, path):
        """The status of a page; None while nobody answers."""
        try:
            return self.page(path)[0]
        except OSError:
            return None

    def metric(self, line):
        """A figure of /metrics; 0 while it is not there."""
        try:
            text = self.page("/metrics")[1]
        except (OSError, HTTPException):  # it is not there, or just went
            return 0.0
        return next((float(one.rsplit(" ", 1)[1]) for one in text.splitlines() if one.startswith(line + " ")), 0.0)

    def leads(self):
        return self.metric('leader_election_master_status{name="moorage-operator"}') == 1

    def log(self):
        return (self.folder / f"{self.identity}.log").read_text()


class Kubelet:
    """Reports on pods, as a kubelet would: there are no nodes here."""

    def __init__(self, api, namespace):
        self.api = api
        self.namespace = namespace

    def pods(self, selector="moorage.dev/deployment"):
        pods = self.api.items(self.namespace, "pods", selector)
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def report(self, pod, status):
        path = address(self.namespace, "pods", pod["metadata"]["name"], "status")
        self.api("PATCH", path, {"status": status}, MERGE)

    def ready(self, selector="moorage.dev/deployment"):
        """Every replica that is not ready becomes so; returns how many there were."""
        waiting = [pod for pod in self.pods(f"{selector},!{names.PURPOSE_LABEL}") if not is_ready(pod)]
        for pod in waiting:
            try:
                self.report(pod, READY)
            except RefusedError as error:
                if error.status != NOT_FOUND:  # it went meanwhile
                    raise
        return len(waiting)


def is_ready(pod):
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", ()))


READY = {
    "phase": "Running",
    "conditions": [{"type": name, "status": "True"} for name in ("PodScheduled", "Ready", "ContainersReady")],
    "podIP": "10.244.0.9",
    "initContainerStatuses": [
        {
            "name": "fetch",
            "image": "i",
            "imageID": "",
            "ready": True,
            "restartCount": 0,
            "state": {"terminated": {"exitCode": 0, "message": json.dumps({"digest": "sha256:" + "a" * 64})}},
        }
    ],
    "containerStatuses": [
        {
            "name": "server",
            "image": "i",
            "imageID": "",
            "ready": True,
            "started": True,
            "restartCount": 0,
            "state": {"running": {}},
        }
    ],
}


# Telemetry is always on port 8081: each gateway gets an address of its own.
addresses = own_addresses(78)
BUCKETS = {"ttft": [0.1, 1.0], "itl": [0.01, 0.1]}


class StandIn(Background):
    """A gateway as the operator sees one: a labelled pod, and telemetry that the test decides about.

    `sync` hears of pods and weights as a real one does; `serve` counts requests; `demand` says who waits and since when
    nobody does.
    """

    def __init__(self, team, name):
        super().__init__()
        self.team, self.name, self.address = team, name, next(addresses)
        self.models, self.started, self.streams, self.changed = {}, _now(), 0, None
        self.asked = {}
        self.run(self.open())
        self._appear()

    def close(self):
        self.run(self.shut())
        super().close()

    async def open(self):
        self.changed, self.closed = asyncio.Condition(), False
        app = web.Application()
        app.router.add_get(names.TELEMETRY_PATH, self._tell)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, self.address, names.GATEWAY_INTERNAL_PORT).start()

    async def shut(self):
        self.closed = True
        async with self.changed:
            self.changed.notify_all()
        await self.runner.cleanup()

    def away(self):
        """The process ends; its pod stays."""
        self.run(self.shut())

    def back(self):
        """It starts again, and has counted nothing."""
        self.started = _now()
        self.asked = {}
        for model in self.models.values():
            model.update(self._asked(model["deployment"]))
            for revision in model["revisions"]:
                revision.update(_nothing())
        self.run(self.open())

    def sync(self, name="chat"):
        """Hear of the ready pods and of the weights."""
        pods = [pod for pod in self.team.kubelet.pods(f"moorage.dev/deployment={name}") if is_ready(pod)]
        weights = {one["number"]: one["weight"] for one in self.team.status(name).get("revisions", ())}
        targets = {number: [] for number in weights}
        for pod in pods:
            number = int(pod["metadata"]["labels"][names.REVISION_LABEL])
            targets.setdefault(number, []).append(pod["metadata"]["uid"])
        before = {one["number"]: one for one in self.models.get(name, {}).get("revisions", ())}
        revisions = [
            {
                **_nothing(),
                **before.get(number, {}),
                "number": number,
                "weight": weights.get(number, 0),
                "targets": here,
            }
            for number, here in sorted(targets.items())
        ]
        self._say(name, revisions, [])

    def serve(self, number, requests, errors=0, bucket=0, name="chat"):
        """Answer requests of a revision, each with its first token in that bucket."""
        revisions = json.loads(json.dumps(self.models[name]["revisions"]))
        for one in revisions:
            if one["number"] == number:
                one["requests"] += requests
                one["errors"] += errors
                one["ttft"][bucket] += requests
        self._say(name, revisions, self.models[name]["pods"])

    def demand(self, name="chat", *, held=0, ago=0.0):
        """So many requests wait; the last one was there so many seconds ago."""
        self.asked[name] = {"held": held, "lastDemand": _text(datetime.now(UTC) - timedelta(seconds=ago))}
        self._say(name, self.models[name]["revisions"], self.models[name]["pods"])

    def _asked(self, name):
        return self.asked.get(name, {"held": 0, "lastDemand": self.started})

    def report(self, *pods, name="chat"):
        """What pods say of themselves."""
        self._say(name, self.models[name]["revisions"], list(pods))

    def _say(self, name, revisions, pods):
        about = {"namespace": self.team.namespace, "deployment": name, **self._asked(name)}
        model = {**about, "revisions": revisions, "pods": pods}
        if self.models.get(name) != model:
            self.run(self._change(name, model))

    async def _change(self, name, model):
        async with self.changed:
            self.models = {**self.models, name: model}
            self.changed.notify_all()

    async def _tell(self, request):
        assert "watch" in request.query
        stream = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
        await stream.prepare(request)
        self.streams += 1
        with contextlib.suppress(ConnectionResetError):  # the operator went away
            await self._tell_all(stream)
        return stream

    async def _tell_all(self, stream):
        sent = None
        while not self.closed:
            models = self.models
            await stream.write(self._line(models, sent))
            sent = models
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1), self.changed:
                    await self.changed.wait_for(lambda: self.closed or self.models is not sent)  # noqa: B023 - this sent

    def _line(self, models, sent):
        changed = [model for name, model in models.items() if sent is None or sent.get(name) != model]
        about = {"gateway": self.name, "started": self.started, "time": _now(), "buckets": BUCKETS}
        about["whole"] = sent is None
        return json.dumps({**about, "models": changed, "removed": []}).encode() + b"\n"

    def _appear(self):
        make_gateway_pod(self.team, self.name, self.address)


def make_gateway_pod(team, name, address):
    """A pod that looks like a gateway's, at an address of this machine."""
    metadata = {"name": name, "namespace": team.namespace, "labels": {names.NAME_LABEL: names.GATEWAY}}
    spec = {"containers": [{"name": "gateway", "image": "i"}], "automountServiceAccountToken": False}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    team.kubectl("create", "--filename=-", stdin=json.dumps(pod))
    ready = {"type": "Ready", "status": "True"}
    team.kubelet.report(pod, {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": [ready]})


def _now():
    return _text(datetime.now(UTC))


def _text(moment):
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _nothing():
    return {"inFlight": 0, "requests": 0, "errors": 0, "tokens": 0, "ttft": [0] * 3, "itl": [0] * 3}
