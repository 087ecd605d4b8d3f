import asyncio
import json
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from moorage_runtime.engine.messages import Submit

HERE = Path(__file__).parent
# Generous: an overloaded machine is slow, and a condition that comes true is not waited for.
DEADLINE = 120
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    "{% if messages[0]['role'] == 'assistant' %}{{ raise_exception('begin with the user') }}{% endif %}"
)


def byte_tokenizer():
    """A token per byte, and an end token (id 256)."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({char: index for index, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<end>", normalized=False)])
    return tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 256, "temperature": 0.25, "top_k": 7}))
    return folder


@dataclass
class Running:
    """A server process with the stand-in engine."""

    process: subprocess.Popen
    port: int
    folder: Path

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def engine_log(self):
        """What the engine wrote down until now; a line that it still writes is left for the next look."""
        lines = (self.folder / "engine.log").read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def engine_pid(self):
        return self.engine_log()[0][1]

    def submitted(self):
        """The requests that reached the engine, oldest first."""
        return [msgspec.convert(entry, Submit, strict=False) for entry in self.engine_log() if entry[0] == "submit"]

    def cancelled(self):
        return [entry[1] for entry in self.engine_log() if entry[0] == "cancel"]

    def termination(self):
        return json.loads((self.folder / "termination").read_text())

    async def until(self, condition):
        """Wait until `condition()` holds."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true"
            await asyncio.sleep(0.01)

    async def get(self, path):
        async with aiohttp.ClientSession() as session, session.get(self.url + path) as response:
            return response.status, await response.read()

    async def post(self, path, body, **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with aiohttp.ClientSession() as session, session.post(self.url + path, data=data, headers=headers) as got:
            return got.status, got.headers, await got.json()

    def output(self):
        return (self.folder / "output").read_text()

    def ready(self):
        try:
            with urllib.request.urlopen(self.url + "/readyz", timeout=DEADLINE) as response:
                return response.status == 200
        except OSError:
            return False

    def fetch(self, path):
        with urllib.request.urlopen(self.url + path, timeout=DEADLINE) as response:
            return response.read().decode()

    def telemetry(self):
        return json.loads(self.fetch("/telemetry"))

    def metrics(self):
        return self.fetch("/metrics")

    def listens(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def wait(self):
        return self.process.wait(DEADLINE)

    def end(self):
        """As a pod is ended in a hurry: the second signal aborts what runs. Its temporary folder goes with it."""
        deadline = time.monotonic() + DEADLINE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.output()
            self.process.terminate()
            time.sleep(0.05)


def start(folder, model, *more, max_waiting=1000, wait=True):
    """Start a server in `folder`; returns when it is ready (or, without `wait`, answers), or has ended.

    `more`: options of `serve_fake.py`, and arguments of the stand-in engine.
    """
    (folder / "termination").touch()
    arguments = [model, folder / "port", folder / "termination", max_waiting, "--log", folder / "engine.log"]
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, HERE / "serve_fake.py", *map(str, arguments), *more], stdout=output, stderr=output
        )
    deadline = time.monotonic() + DEADLINE
    while process.poll() is None:
        assert time.monotonic() < deadline, (folder / "output").read_text()
        port = folder / "port"
        if port.exists() and port.read_text():
            running = Running(process, int(port.read_text()), folder)
            if running.ready() if wait else running.listens():
                return running
        time.sleep(0.02)
    return Running(process, 0, folder)


@pytest.fixture
def serve(tmp_path, model_folder):
    """Starts servers of a test's own; those that still run at its end are ended."""
    started = []

    def serve_one(*more, model=model_folder, **options):
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(start(folder, model, *more, **options))
        return started[-1]

    yield serve_one
    for running in started:
        running.end()


@pytest.fixture(scope="module")
def serve_once(tmp_path_factory, model_folder):
    """Starts servers that the tests of one module share."""
    started = []

    def serve_one(*more):
        started.append(start(tmp_path_factory.mktemp("shared"), model_folder, *more))
        return started[-1]

    yield serve_one
    for running in started:
        running.end()


@pytest.fixture(scope="session")
def echo(tmp_path_factory, model_folder):
    """A server that tests share; they leave it as it was."""
    running = start(tmp_path_factory.mktemp("echo"), model_folder)
    yield running
    running.end()
