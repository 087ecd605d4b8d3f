"""What the start of an engine asks of a model in memory, whoever computes it: torch (`torch_path`) or our kernels."""

from typing import Protocol

from moorage_runtime.engine.plan import Limits, Runner, Sampled, StepPlan
from moorage_runtime.model.config import ModelConfig
from moorage_runtime.model.step_arrays import StepArrays


class KVBudget(Protocol):
    """What is left for the KV cache."""

    def kv_blocks(self, context_length: int, max_running: int) -> int:
        """Blocks that fit, and no more than all running requests can use.

        Raises:
            InsufficientMemoryError: one request of `context_length` tokens does not fit.
        """
        ...


class LoadedModel(Protocol):
    """A model with its weights in memory."""

    @property
    def config(self) -> ModelConfig:
        """Its shape."""
        ...

    @property
    def dtype(self) -> str:
        """Type of activations and KV cache, as `Started.dtype` names it."""
        ...

    @property
    def kernels(self) -> str:
        """The path that computes, as `Started.kernels` names it."""
        ...

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights in memory."""
        ...

    def runner(self, limits: Limits) -> Runner:
        """What computes an engine's plans, with a KV cache of `limits.total_blocks`."""
        ...

    def probe(self, blocks: int, layers: int | None = None) -> Runner:
        """A runner to measure with: a cache of so many blocks, and only the first `layers` layers."""
        ...

    def budget(self) -> KVBudget:
        """What is left for the KV cache, asked after the largest step has been computed by a probe."""
        ...


class PartRunner(Runner, Protocol):
    """What computes a rank's part of each step."""

    def compute(self, plan: StepPlan, arrays: StepArrays) -> list[Sampled]:
        """As rank 0, which gets the result; `arrays` are the plan's."""
        ...

    def follow(self, arrays: StepArrays) -> object:
        """As another rank."""
        ...


class PartModel(LoadedModel, Protocol):
    """A rank's part of a model, with its weights in memory."""

    def runner(self, limits: Limits) -> PartRunner:
        """See `LoadedModel`."""
        ...

    def probe(self, blocks: int, layers: int | None = None) -> PartRunner:
        """See `LoadedModel`."""
        ...
