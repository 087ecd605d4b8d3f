"""The gateway as a process, on a real API server whose pods have no kubelet: their status is set by hand.

Between the two is a TCP relay, so that the API server can go away for one gateway only.
"""

import asyncio
import contextlib
import re
import signal

import pytest
import yaml

from tests.integration.gateway_kit import DEADLINE, EVENT, Cluster, Gateway, Replica
from tests.integration.gateway_kit import until as _until


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
    environ = {"MOORAGE_WATCH_NAMESPACE": namespace, "MOORAGE_KUBECONFIG": str(tmp_path / "config")}
    running = await Gateway.start(http, **environ)
    yield running
    await running.end()


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
    return Cluster(kubectl, namespace)


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

    await apply.pod_ready(pod, replica.address, ready=False)
    await _until(gateway.models, lambda names: names == [])
    await apply.pod_ready(pod, replica.address, ready=True)
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


async def test_requests_for_a_model_that_sleeps_wake_it_and_are_answered_by_its_first_replica(
    gateway, apply, make_replica
):
    await apply.model("chat", {1: 100})
    await apply.status("chat", {1: 100}, "ScaledToZero", "It sleeps.", Accepted=True, Available=True)
    await _until(gateway.models, lambda names: names == ["chat"])
    async with gateway.watch() as line:
        assert [model["held"] for model in (await line())["models"]] == [0]
        asking = [asyncio.create_task(gateway.ask("chat")) for _ in range(3)]
        while not any(model["held"] == 3 for model in (await line())["models"]):
            pass
        await apply.pod("chat", 1, await make_replica())
        for status, text in await asyncio.gather(*asking):
            assert (status, text.endswith(EVENT.decode() + "data: [DONE]\n\n")) == (200, True)
        while not any(model["held"] == 0 for model in (await line())["models"]):
            pass


async def test_what_waits_at_sigterm_is_answered_before_the_gateway_ends(gateway, apply, make_replica):
    await apply.model("chat", {1: 100})
    await apply.status("chat", {1: 100}, "LoadingWeights", Accepted=True)
    asking = asyncio.create_task(gateway.ask("chat"))
    async with gateway.watch() as line:
        while not any(model["held"] for model in (await line())["models"]):
            pass
        gateway.process.send_signal(signal.SIGTERM)
        await _until(lambda: gateway.get("/v1/models"), lambda seen: seen[0] == 0)  # nobody accepts any more
        await apply.pod("chat", 1, await make_replica())
        status, text = await asking
    assert (status, text.endswith("data: [DONE]\n\n")) == (200, True)
    async with asyncio.timeout(DEADLINE):
        assert await gateway.process.wait() == 0


async def test_what_still_waits_when_the_gateway_has_to_end_is_refused_in_words(kubeconfig, namespace, http, apply):
    environ = {"MOORAGE_WATCH_NAMESPACE": namespace, "MOORAGE_KUBECONFIG": str(kubeconfig)}
    gateway = await Gateway.start(http, "--drain-seconds=3", **environ)
    await apply.model("chat", {1: 100})
    await apply.status("chat", {1: 100}, "LoadingWeights", "Half of it.", Accepted=True)
    await _until(lambda: gateway.get("/telemetry", internal=True), lambda seen: '"deployment":"chat"' in seen[1])
    asking = asyncio.create_task(gateway.ask("chat"))
    async with gateway.watch() as line:
        while not any(model["held"] for model in (await line())["models"]):
            pass
        gateway.process.send_signal(signal.SIGTERM)
        _, text = await asking
    assert "LoadingWeights: Half of it." in text
    async with asyncio.timeout(DEADLINE):
        assert await gateway.process.wait() == 0
