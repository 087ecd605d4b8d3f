"""The model as the engine knows it: a plan in, one token per sampling chunk out."""

import torch

from moorage_runtime.engine.plan import Sampled, StepPlan
from moorage_runtime.model.sampler import sample
from moorage_runtime.model.torch_path.batch import build
from moorage_runtime.model.torch_path.cache import KVCache
from moorage_runtime.model.torch_path.llama import Llama


class ModelRunner:
    """Computes plans with one model and one cache, on the thread that calls it."""

    def __init__(self, model: Llama, cache: KVCache, layers: int | None = None) -> None:
        self._model = model
        self._cache = cache
        self._layers = layers

    @torch.inference_mode()
    def execute(self, plan: StepPlan) -> list[Sampled]:
        """See `moorage_runtime.engine.plan.Runner`."""
        config = self._model.config
        batch = build(plan.chunks, config.heads // config.kv_heads, self._model.dtype)
        logits = self._model.forward(batch, self._cache, self._layers)
        return sample(logits, [chunk.sequence for chunk in plan.chunks if chunk.samples])
