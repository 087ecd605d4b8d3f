"""The gateway and the runtime's server, both real, over HTTP. Only the engine behind the server is a stand-in.

What each side sends is what the other side reads: neither imports the other, so this is where they meet.
"""

import asyncio
import importlib.util
import json
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from moorage_gateway.request import Limits
from moorage_gateway.table import Revision, Target

UNIT = Path(__file__).resolve().parents[1] / "unit"
BODY = {"model": "smol", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 40}


def _harness(package):
    """The doors that the two packages' own tests use."""
    name = f"contract_{package}"
    spec = importlib.util.spec_from_file_location(name, UNIT / package / "conftest.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


gateway_side, runtime_side = _harness("moorage_gateway"), _harness("moorage_runtime_server")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    runtime_side.byte_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(runtime_side.TEMPLATE)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 256}))
    return folder


@pytest.fixture
def runtime(tmp_path, model_folder):
    """Starts runtimes; arguments are the stand-in engine's."""
    started = []

    def start(*engine):
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(runtime_side.start(folder, model_folder, *engine))
        return started[-1]

    yield start
    for running in started:
        running.end()


@pytest.fixture
async def gateway():
    running = gateway_side.Gateway(Limits(header_bytes=8192, body_bytes=100_000, seconds=30))
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
def serve(gateway):
    """Give the gateway a model, `smol`, with these runtimes."""

    def give(*runtimes):
        targets = tuple(Target(str(each.port), str(each.port), f"127.0.0.1:{each.port}") for each in runtimes)
        gateway.serve(gateway_side.model(Revision(1, 100, targets), name="smol"))

    return give


@pytest.fixture
async def http():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield session


@pytest.fixture
def ask(gateway, http):
    async def post(body):
        async with http.post(f"{gateway.url}/v1/chat/completions", json=body) as answer:
            return answer.status, answer.headers, await answer.text()

    return post


@pytest.mark.parametrize("name", ["smol", "team-a/smol"])
@pytest.mark.parametrize("stream", [True, False])
async def test_the_answer_carries_the_name_that_the_client_used(runtime, serve, ask, name, stream):
    serve(runtime())
    status, headers, text = await ask(BODY | {"model": name, "stream": stream})
    assert status == 200, text
    events = [line.removeprefix("data: ") for line in text.split("\n\n") if line] if stream else [text]
    named = [json.loads(event)["model"] for event in events if event != "[DONE]"]
    assert named == [name] * len(named)
    assert named
    assert not [header for header in headers if header.lower().startswith("x-moorage-")]


async def test_the_load_on_an_answer_is_understood(runtime, serve, ask, gateway):
    serve(runtime())
    reported = []
    gateway.targets.report = lambda _key, requests: reported.append(requests)
    await ask(BODY | {"stream": True})
    assert len(reported) == 1


async def test_telemetry_is_understood(runtime, serve, gateway):
    running = runtime()
    serve(running)
    scraping = asyncio.create_task(gateway.scraper().run())
    await gateway_side.wait_until(lambda: gateway.targets.load == {str(running.port): 0})
    scraping.cancel()
    await asyncio.gather(scraping, return_exceptions=True)


async def test_errors_of_either_side_have_one_shape(runtime, serve, ask):
    serve(runtime())
    of_runtime = await ask(BODY | {"temperature": "warm"})
    of_gateway = await ask(BODY | {"model": "nothing"})
    assert (of_runtime[0], of_gateway[0]) == (400, 404)
    shapes = [json.loads(text)["error"].keys() for _, _, text in (of_runtime, of_gateway)]
    assert shapes[0] == shapes[1] == {"message", "type", "param", "code"}


async def test_a_runtime_that_drains_costs_no_request(runtime, serve, ask, http, gateway):
    draining, other = runtime("--pace", "0.05"), runtime()
    serve(draining)
    url = f"{gateway.url}/v1/chat/completions"
    async with http.post(url, json=BODY | {"stream": True}) as running:
        assert (await running.content.readany()).startswith(b"data: ")
        draining.process.send_signal(signal.SIGTERM)
        await gateway_side.wait_until(lambda: not draining.ready())
        serve(draining, other)
        gateway.targets.report(str(other.port), 9)  # so that the one that drains comes first
        assert (await ask(BODY))[0] == 200
        assert (await running.text()).endswith("data: [DONE]\n\n")


async def test_a_client_that_leaves_ends_the_generation(runtime, serve, http, gateway):
    running = runtime("--pace", "0.05")
    serve(running)
    url = f"{gateway.url}/v1/chat/completions"
    async with http.post(url, json=BODY | {"stream": True}) as answer:
        await answer.content.readany()
    await running.until(running.cancelled)
