"""The whole runtime with the real model, asked by the official client: `moorage-runtime serve` as a pod runs it."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from random import Random

import openai
import pytest

pytestmark = pytest.mark.model
# Generous: two cores may be shared with a whole cluster.
START_DEADLINE = 300
QUESTION = [{"role": "user", "content": "What is a harbour? Answer in one sentence."}]


class Served:
    """A server process and where it answers."""

    def __init__(self, folder, model, *more):
        self.termination = folder / "termination"
        self.termination.touch()
        self.log = folder / "log"
        command = [sys.executable, "-m", "moorage_runtime.server.main", "serve", str(model), "--served-name", "chat"]
        command += ["--port", "0", "--host", "127.0.0.1", "--context-length", "512", "--max-running", "4"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--termination-log", str(self.termination), *more], stdout=log, stderr=log
            )
        self.url = self._wait_until_ready()

    def _wait_until_ready(self):
        deadline = time.monotonic() + START_DEADLINE
        while "is ready on" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)
        return self.log.read_text().partition("is ready on ")[2].split("/v1")[0]

    def client(self):
        return openai.AsyncOpenAI(base_url=self.url + "/v1", api_key="none", max_retries=0, timeout=START_DEADLINE)

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=60) as response:
            return response.read().decode()

    def held(self):
        """Sequences that run or wait."""
        telemetry = json.loads(self.get("/telemetry"))
        return telemetry["running"] + telemetry["waiting"]

    def ready(self):
        try:
            self.get("/readyz")
        except urllib.error.HTTPError:
            return False
        return True

    async def until(self, condition):
        deadline = time.monotonic() + START_DEADLINE
        while not condition():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)

    def engine_pid(self):
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        (pid,) = [int(child) for child in children]
        return pid

    def end(self):
        """As a pod is ended in a hurry: the second signal aborts what runs. Its temporary folder goes with it."""
        deadline = time.monotonic() + START_DEADLINE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.log.read_text()
            self.process.terminate()
            time.sleep(0.05)


@pytest.fixture(scope="module")
def shared(tmp_path_factory, smollm2_path):
    served = Served(tmp_path_factory.mktemp("served"), smollm2_path)
    yield served
    served.end()


@pytest.fixture
def own(tmp_path, smollm2_path):
    served = Served(tmp_path, smollm2_path)
    yield served
    served.end()


async def streamed(client, **more):
    stream = await client.chat.completions.create(model="chat", messages=QUESTION, stream=True, **more)
    return [chunk async for chunk in stream]


def text_of(chunks):
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


async def test_streamed_and_whole_are_the_same_sensible_answer(shared):
    async with shared.client() as client:
        how = {"temperature": 0, "max_tokens": 24}
        whole = await client.chat.completions.create(model="chat", messages=QUESTION, **how)
        chunks = await streamed(client, stream_options={"include_usage": True}, **how)
    text = whole.choices[0].message.content
    assert text == text_of(chunks)
    assert "harbour" in text.lower()
    assert whole.usage.completion_tokens == chunks[-1].usage.completion_tokens <= 24
    assert whole.choices[0].finish_reason in ("stop", "length")


async def test_clients_in_parallel_get_what_they_get_alone(shared):
    prompts = ["The capital of France is", "Two plus two equals"]
    async with shared.client() as client:

        async def complete(prompt):
            answer = await client.completions.create(model="chat", prompt=prompt, temperature=0, max_tokens=12)
            return answer.choices[0].text

        alone = [await complete(prompt) for prompt in prompts]
        together = await asyncio.gather(*(complete(prompt) for prompt in prompts))
    assert "Paris" in alone[0]
    assert together == alone


async def test_a_seed_repeats_itself_and_choices_differ(shared):
    async with shared.client() as client:
        how = {"model": "chat", "prompt": "Once upon a time", "seed": 7, "temperature": 1.0, "max_tokens": 12, "n": 2}
        first = await client.completions.create(**how)
        again = await client.completions.create(**how)
    assert [choice.text for choice in first.choices] == [choice.text for choice in again.choices]
    assert first.choices[0].text != first.choices[1].text


async def test_a_stop_string_is_not_part_of_the_answer(shared):
    async with shared.client() as client:
        how = {"model": "chat", "prompt": "1, 2, 3, 4,", "temperature": 0, "max_tokens": 30}
        free = (await client.completions.create(**how)).choices[0].text
        stop = free[5:8]
        answer = (await client.completions.create(**how, stop=stop)).choices[0]
    assert answer.text == free.partition(stop)[0]
    assert answer.finish_reason == "stop"


async def test_logprobs_of_a_greedy_answer_are_its_best_tokens(shared):
    async with shared.client() as client:
        answer = await client.chat.completions.create(
            model="chat", messages=QUESTION, temperature=0, max_tokens=5, logprobs=True, top_logprobs=3
        )
    content = answer.choices[0].logprobs.content
    assert len(content) == 5
    assert all(entry.logprob == entry.top_logprobs[0].logprob <= 0 for entry in content)
    assert "".join(entry.token for entry in content) == answer.choices[0].message.content


async def test_a_client_that_leaves_frees_its_place(shared):
    async with shared.client() as client:
        stream = await client.chat.completions.create(
            model="chat", messages=QUESTION, stream=True, max_tokens=400, extra_body={"ignore_eos": True}
        )
        await anext(aiter(stream))
        assert json.loads(shared.get("/telemetry"))["running"] == 1
        await stream.close()
    await shared.until(lambda: json.loads(shared.get("/telemetry"))["running"] == 0)
    assert 'finished_reason="abort"' in shared.get("/metrics")


async def test_choices_share_their_prompt(shared):
    """The prompt is counted once, and what later requests find of it in the cache is told."""
    async with shared.client() as client:
        how = {"model": "chat", "prompt": "A harbour is a sheltered place. " * 12, "max_tokens": 4, "n": 3}
        first = await client.completions.create(**how)
        again = await client.completions.create(**how)
        salted = await client.completions.create(**how, extra_body={"cache_salt": "another tenant"})
    assert len({answer.usage.prompt_tokens for answer in (first, again, salted)}) == 1
    assert first.usage.prompt_tokens > 64
    cached = [answer.usage.prompt_tokens_details.cached_tokens for answer in (first, again, salted)]
    assert cached[0] == cached[2] == 0
    assert 64 <= cached[1] < first.usage.prompt_tokens
    assert first.usage.completion_tokens <= 12
    metrics = shared.get("/metrics")
    assert float(re.search(r"vllm:prefix_cache_hits_total\{.*\} (\S+)", metrics)[1]) >= cached[1]


async def test_a_time_limit_cuts_an_answer(shared):
    async with shared.client() as client:
        answer = await client.completions.create(
            model="chat", prompt="Once", n=4, max_tokens=480, extra_body={"ignore_eos": True, "timeout": 0.5}
        )
    assert {choice.finish_reason for choice in answer.choices} == {"length"}
    assert {choice.stop_reason for choice in answer.choices} == {"timeout"}
    assert 0 < answer.usage.completion_tokens < 4 * 480


async def test_clients_of_every_kind_leave_nothing_behind(tmp_path, smollm2_path, load_module, checkout):
    clients = load_module(checkout / "tests" / "unit" / "moorage_runtime_server" / "clients.py")
    served = Served(tmp_path, smollm2_path, "--served-name", "echo", "--max-running", "16")
    try:
        port, random = int(served.url.rpartition(":")[2]), Random(7)
        sizes = []
        for _ in range(3):
            await asyncio.gather(*(clients.visit(random, port) for _ in range(30)))
            await served.until(lambda: served.held() == 0)
            sizes.append(_resident(served.process.pid))
        assert sizes[2] - sizes[0] < 4 << 20
        ends = re.findall(r'vllm:request_success_total\{.*finished_reason="(\w+)"', served.get("/metrics"))
        assert set(ends) <= {"stop", "length", "abort"}
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(START_DEADLINE) == 0
    finally:
        served.end()


def _resident(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_bad_requests_name_what_is_wrong(shared):
    async with shared.client() as client:
        with pytest.raises(openai.BadRequestError, match="maximum context length is 512 tokens") as long:
            await client.completions.create(model="chat", prompt="word " * 600)
        with pytest.raises(openai.NotFoundError, match="The model 'gpt-4' does not exist here"):
            await client.completions.create(model="gpt-4", prompt="hi")
    assert long.value.code == "context_length_exceeded"


async def test_sigterm_finishes_open_streams(own):
    """More of them than are computed together."""
    async with own.client() as client:
        how = {"max_tokens": 80, "extra_body": {"ignore_eos": True}}
        streams = [asyncio.ensure_future(streamed(client, **how)) for _ in range(32)]
        await own.until(lambda: re.search(r"vllm:request_params_n_count\{.*\} 32", own.get("/metrics")))
        own.process.send_signal(signal.SIGTERM)
        await own.until(lambda: not own.ready())
        with pytest.raises(openai.InternalServerError, match="shutting down"):
            await client.completions.create(model="chat", prompt="too late")
        answers = await asyncio.gather(*streams)
    assert [chunks[-1].choices[0].finish_reason for chunks in answers] == ["length"] * 32
    assert own.process.wait(START_DEADLINE) == 0


async def test_every_client_of_a_killed_engine_gets_an_error(own):
    async with own.client() as client:
        how = {"max_tokens": 400, "extra_body": {"ignore_eos": True}}
        streams = [asyncio.ensure_future(streamed(client, **how)) for _ in range(6)]
        whole = asyncio.ensure_future(client.chat.completions.create(model="chat", messages=QUESTION, **how))
        await own.until(lambda: own.held() == 7)
        os.kill(own.engine_pid(), signal.SIGKILL)
        errors = await asyncio.gather(*streams, whole, return_exceptions=True)
    assert all(isinstance(error, openai.APIError) for error in errors)
    assert all("was killed by SIGKILL" in str(error) for error in errors)
    assert own.process.wait(START_DEADLINE) == 1
    assert json.loads(own.termination.read_text())["reason"] == "EngineFailed"


async def test_a_killed_server_takes_its_engine_with_it(own):
    engine = own.engine_pid()
    own.process.kill()
    own.process.wait()
    await own.until(lambda: not _alive(engine))


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_folder_without_a_model(tmp_path):
    termination = tmp_path / "termination"
    termination.touch()
    done = subprocess.run(
        [sys.executable, "-m", "moorage_runtime.server.main", "serve", tmp_path, "--termination-log", termination],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert json.loads(termination.read_text())["reason"] == "UnsupportedModel"
    assert "neither a tokenizer.json nor a GGUF file" in done.stderr
