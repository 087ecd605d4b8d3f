"""What the operator reads of a gateway: each line of `/telemetry?watch`, of a real gateway in front of a real runtime.

The models here are the contract: a field more, a field less or another type is a change of it.
"""

import asyncio
import importlib.util
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, TypeAdapter

from moorage_api import names
from moorage_gateway.request import Limits
from moorage_gateway.settings import Settings
from moorage_gateway.table import Revision, Start, Target
from moorage_gateway.telemetry import Pace
from moorage_operator.manifest import Key
from moorage_operator.shell.views import View as OperatorsView

ROOT = Path(__file__).resolve().parents[2]
BODY = {"model": "smol", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 40}


def _harness(package):
    name = f"telemetry_{package}"
    spec = importlib.util.spec_from_file_location(name, ROOT / "tests/unit" / package / "conftest.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


gateway_side, runtime_side = _harness("moorage_gateway"), _harness("moorage_runtime_server")


class _Exact(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class RevisionFigures(_Exact):
    number: int = Field(ge=1)
    weight: int = Field(ge=0, le=100)
    targets: list[str]
    inFlight: NonNegativeInt  # noqa: N815 - as it is on the wire
    requests: NonNegativeInt
    errors: NonNegativeInt
    tokens: NonNegativeInt
    ttft: list[NonNegativeInt]
    itl: list[NonNegativeInt]


class PodFigures(_Exact):
    uid: str
    at: str
    running: NonNegativeInt
    waiting: NonNegativeInt
    kvCacheUtilization: NonNegativeFloat  # noqa: N815 - as it is on the wire
    cpuUtilization: NonNegativeFloat | None = None  # noqa: N815 - as it is on the wire; not in the first second
    tokensPerSecond: NonNegativeFloat  # noqa: N815 - as it is on the wire
    gpu: dict[str, Any]


class ModelFigures(_Exact):
    namespace: str
    deployment: str
    held: NonNegativeInt
    lastDemand: str  # noqa: N815 - as it is on the wire
    revisions: list[RevisionFigures]
    pods: list[PodFigures]


class Buckets(_Exact):
    ttft: list[float]
    itl: list[float]


class View(_Exact):
    gateway: str
    started: str
    time: str
    certificate: str = ""
    whole: bool
    buckets: Buckets
    models: list[ModelFigures]
    removed: list[str]


def _checked(text):
    view = TypeAdapter(View).validate_json(text)
    assert datetime.fromisoformat(view.started).tzinfo is not None
    for revision in (each for model in view.models for each in model.revisions):
        assert len(revision.ttft) == len(view.buckets.ttft) + 1
        assert len(revision.itl) == len(view.buckets.itl) + 1
        assert revision.errors <= revision.requests
    return view


@pytest.fixture
def runtime(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    runtime_side.byte_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(runtime_side.TEMPLATE)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 256}))
    running = runtime_side.start(tmp_path, folder)
    yield running
    running.end()


@pytest.fixture
async def gateway():
    running = gateway_side.Gateway(Limits(header_bytes=8192, body_bytes=100_000, seconds=30))
    await running.start()
    scraping = asyncio.create_task(running.scraper(0.05).run())
    yield running
    scraping.cancel()
    await asyncio.gather(scraping, return_exceptions=True)
    await running.stop()


@pytest.fixture
async def inside(gateway):
    opened = gateway_side.Inside(gateway, Pace(tick=0.05, heartbeat=0.2))
    await opened.start()
    yield opened
    await opened.stop()


@pytest.fixture
async def http():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield session


async def test_every_line_of_a_watch_is_what_the_operator_reads(runtime, inside, http):
    target = Target("pod-uid", "smol-r1-x", f"127.0.0.1:{runtime.port}")
    inside.serve(gateway_side.model(Revision(1, 100, (target,)), Revision(2, 0, ()), name="smol"))
    async with http.get(f"{inside.url}?watch") as watch:
        first = _checked(await watch.content.readline())
        assert (first.whole, [model.deployment for model in first.models]) == (True, ["smol"])
        for stream in (True, False):
            async with http.post(f"{inside.gateway.url}/v1/chat/completions", json=BODY | {"stream": stream}) as answer:
                assert answer.status == 200
                await answer.read()
        while True:
            view = _checked(await watch.content.readline())
            assert not view.whole
            if view.models and view.models[0].pods and view.models[0].revisions[0].requests == 2:
                break
        served, empty = view.models[0].revisions
        assert (served.targets, served.errors, served.inFlight, sum(served.ttft)) == (["pod-uid"], 0, 0, 1)
        assert served.tokens >= 2
        assert (empty.targets, empty.requests) == ([], 0)
        assert [pod.uid for pod in view.models[0].pods] == ["pod-uid"]
        assert "available" in view.models[0].pods[0].gpu
        while (cpu := view.models[0].pods[0].cpuUtilization if view.models else None) is None:
            view = _checked(await watch.content.readline())
        assert 0 <= cpu <= 1
        inside.serve()
        while not (view := _checked(await watch.content.readline())).removed:
            pass
        assert view.removed == ["team-a/smol"]


async def test_one_view_is_the_first_line_of_a_watch(inside, http):
    inside.serve(gateway_side.model(Revision(1, 100, ()), name="smol"))
    async with http.get(inside.url) as answer:
        view = await answer.read()
    async with http.get(f"{inside.url}?watch") as watch:
        first = await watch.content.readline()
    whole, told = _checked(view), _checked(first)
    assert told.time >= whole.time
    assert told.model_copy(update={"time": whole.time}) == whole
    assert whole.whole


def test_the_chart_and_the_gateway_agree_on_where_it_is():
    assert Settings().internal_port == names.GATEWAY_INTERNAL_PORT
    text = (ROOT / "charts/moorage/templates/gateway/deployment.yaml").read_text()
    ports = next(line for line in text.splitlines() if "name: internal" in line)
    assert yaml.safe_load(ports) == [{"name": "internal", "containerPort": names.GATEWAY_INTERNAL_PORT}]


async def test_the_operator_hears_that_requests_wait_and_since_when_there_were_none(inside, http):
    began, operator, key = datetime.now(UTC), OperatorsView(), Key("team-a", "smol")
    inside.certificate = "-----BEGIN CERTIFICATE-----\n"
    inside.serve(gateway_side.model(Revision(1, 100, ()), name="smol", start=Start(possible=True)))
    async with http.get(f"{inside.url}?watch") as watch:

        async def take():
            line = await watch.content.readline()
            _checked(line)
            operator.take(line, datetime.now(UTC))
            return operator.of(key)

        first = await take()
        assert (first.held, operator.certificate) == (0, inside.certificate)
        assert began - timedelta(seconds=10) < first.quiet_since <= datetime.now(UTC)  # since the gateway's start
        asking = asyncio.create_task(http.post(f"{inside.gateway.url}/v1/chat/completions", json=BODY))
        while not (await take()).held:
            pass
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        while (await take()).held:
            pass
        assert first.quiet_since < operator.of(key).quiet_since <= datetime.now(UTC)
