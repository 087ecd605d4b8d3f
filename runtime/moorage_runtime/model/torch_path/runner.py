"""The model as the engine knows it: a plan in, one token per sampling chunk out."""

import torch
from torch import Tensor

from moorage_runtime.engine.plan import Chunk, Sampled, StepPlan
from moorage_runtime.model import sampler
from moorage_runtime.model.step_arrays import StepArrays
from moorage_runtime.model.torch_path import gathered, gpu_sampler, paged
from moorage_runtime.model.torch_path.batch import Batch
from moorage_runtime.model.torch_path.cache import KVCache
from moorage_runtime.model.torch_path.graphs import DecodeGraphs, only_decodes
from moorage_runtime.model.torch_path.llama import Llama


class ModelRunner:
    """Computes plans with one model and one cache, on the thread that calls it."""

    def __init__(
        self,
        model: Llama,
        cache: KVCache,
        layers: int | None = None,
        kernel: paged.Kernel | None = None,
        graphs: DecodeGraphs | None = None,
    ) -> None:
        """Over the cache, which is the graphs' too.

        Args:
            model: The weights.
            cache: Blocks for as many tokens as the plans use, on the model's device.
            layers: Compute only so many: to measure memory.
            kernel: Attends to blocks where they lie; None gathers them.
            graphs: Compute steps that only decode; None computes these like others.
        """
        self._model = model
        self._heads_per_kv = model.config.heads // model.config.kv_heads
        self._cache = cache
        self._layers = layers
        self._kernel = kernel
        self._graphs = graphs

    @torch.inference_mode()
    def execute(self, plan: StepPlan) -> list[Sampled]:
        """See `moorage_runtime.engine.plan.Runner`."""
        logits = self._logits(plan.chunks)
        sequences = [chunk.sequence for chunk in plan.chunks if chunk.samples]
        if logits.device.type == "cpu":
            return sampler.sample(logits.float().numpy(), sequences)
        return gpu_sampler.sample(logits, sequences)

    def compute(self, plan: StepPlan, _arrays: StepArrays) -> list[Sampled]:
        """See `moorage_runtime.model.loaded.PartRunner`."""
        return self.execute(plan)

    @torch.inference_mode()
    def follow(self, arrays: StepArrays) -> None:
        """See `moorage_runtime.model.loaded.PartRunner`."""
        self._logits(arrays.chunks())

    def _logits(self, chunks: tuple[Chunk, ...]) -> Tensor:
        if self._graphs is not None and only_decodes(chunks):
            return self._graphs.logits(chunks)
        return self._model.forward(self._lay_out(chunks), self._cache, self._layers)

    def _lay_out(self, chunks: tuple[Chunk, ...]) -> Batch:
        model = self._model
        if self._kernel is None:
            return gathered.lay_out(chunks, self._heads_per_kv, model.dtype, model.device)
        return paged.lay_out(chunks, self._heads_per_kv, self._kernel, model.device)
