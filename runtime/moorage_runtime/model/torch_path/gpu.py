"""The GPU as torch sees it: in which type it computes, how much memory is left, and what captures its work."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from moorage_runtime.engine.blocks import BLOCK_TOKENS, blocks_for
from moorage_runtime.model.errors import InsufficientMemoryError

KV_SHARE = 0.9
"""Share of the free memory that the KV cache takes: the rest is for CUDA graphs, and for what fragments."""
_MIB = 2**20


def default_dtype() -> torch.dtype:
    """bfloat16 where the GPU computes it (since Ampere), else float16."""
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


@dataclass(frozen=True, slots=True)
class GpuBudget:
    """Where the memory of the GPU goes, in bytes."""

    total: int
    free: int
    """After the largest step, whose working memory torch keeps."""
    block: int
    """One block of the KV cache over all layers."""

    def kv_blocks(self, context_length: int, max_running: int) -> int:
        """See `moorage_runtime.model.loaded.KVBudget`."""
        fitting = max(0, int(self.free * KV_SHARE) // self.block - 1)  # one is for padded rows
        needed = blocks_for(context_length)
        if fitting < needed:
            raise InsufficientMemoryError(self._refusal(context_length, fitting * BLOCK_TOKENS))
        return min(fitting, needed * max_running)

    def _refusal(self, context_length: int, fitting_tokens: int) -> str:
        kv = blocks_for(context_length) * self.block
        lower = f", or lower contextLength (--context-length) to {fitting_tokens}" if fitting_tokens else ""
        return (
            f"{_mib(kv)} of KV cache are needed for contextLength {context_length}, and {fitting_tokens} tokens fit: "
            f"of the GPU's {_mib(self.total)}, {_mib(self.free)} are free beside the weights; use a larger GPU{lower}"
        )


def check_weights_fit(weight_bytes: int, free: int, total: int) -> None:
    """Refuse before loading what would fail while loading.

    Raises:
        InsufficientMemoryError: the weights are larger than what is free.
    """
    if weight_bytes > free:
        raise InsufficientMemoryError(
            f"the weights take {_mib(weight_bytes)}, and of the GPU's {_mib(total)}, {_mib(free)} are free; "
            "use a larger GPU"
        )


class GraphCapture:
    """See `moorage_runtime.model.torch_path.graphs.Capture`: CUDA graphs that share one pool of memory."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, compute: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """Compute once beside, because libraries and kernels set themselves up at their first call; then capture."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call] # torch leaves it untyped
        stream.wait_stream(torch.cuda.current_stream())
        with torch.inference_mode():
            with torch.cuda.stream(stream):
                compute()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                result = compute()
        return graph.replay, result


def _mib(size: int) -> str:
    return f"{math.ceil(size / _MIB)}Mi"
