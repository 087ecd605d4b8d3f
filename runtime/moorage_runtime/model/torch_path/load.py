"""A model in memory, computed by torch on a processor or a GPU: what the start of an engine asks for."""

import importlib.util
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from moorage_runtime import resources
from moorage_runtime.engine.plan import Limits
from moorage_runtime.group.links import Links
from moorage_runtime.model import memory
from moorage_runtime.model.checkpoint import Checkpoint
from moorage_runtime.model.config import ModelConfig
from moorage_runtime.model.device import Device
from moorage_runtime.model.loaded import KVBudget
from moorage_runtime.model.shares import Share
from moorage_runtime.model.torch_path import gpu
from moorage_runtime.model.torch_path.cache import KVCache, block_bytes
from moorage_runtime.model.torch_path.graphs import SCRATCH_BLOCKS, DecodeGraphs
from moorage_runtime.model.torch_path.linear import packs
from moorage_runtime.model.torch_path.llama import Llama
from moorage_runtime.model.torch_path.paged import Kernel
from moorage_runtime.model.torch_path.ranks import ProcessGroup, Ranks
from moorage_runtime.model.torch_path.runner import ModelRunner

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_FLOATS = ("F32", "BF16", "F16")
_WIDE, _AMPERE = 128, (8, 0)


@dataclass(frozen=True, slots=True)
class TorchModel:
    """See `moorage_runtime.model.loaded.LoadedModel`."""

    llama: Llama
    stored: str
    """Format of the checkpoint's matrices."""
    kernel: Kernel | None
    """Attention to blocks where they lie; None gathers them."""

    @property
    def config(self) -> ModelConfig:
        """See `LoadedModel`."""
        return self.llama.config

    @property
    def dtype(self) -> str:
        """See `LoadedModel`."""
        return str(self.llama.dtype).removeprefix("torch.")

    @property
    def weight_bytes(self) -> int:
        """See `LoadedModel`."""
        return self.llama.weight_bytes

    @property
    def kernels(self) -> str:
        """See `LoadedModel`: for example `torch-cuda triton-paged-attention cuda-graphs, Q4_1 as bfloat16`."""
        if self.llama.device.type == "cpu":
            path = f"torch-cpu {'onednn-packed' if packs(self.llama.dtype, self.llama.device) else 'plain'}"
        elif self.kernel is None:
            path = "torch-cuda gathered-attention"
        else:
            path = "torch-cuda triton-paged-attention cuda-graphs"
        return path if self.stored in _FLOATS else f"{path}, {self.stored} as {self.dtype}"

    def runner(self, limits: Limits) -> ModelRunner:
        """See `LoadedModel`; on a GPU decoding steps are captured here."""
        if self.kernel is None:
            return self.probe(limits.total_blocks)
        cache = self._cache(limits.total_blocks + SCRATCH_BLOCKS)
        graphs = DecodeGraphs(self.llama, cache, self.kernel, limits, gpu.GraphCapture())
        return ModelRunner(self.llama, cache, kernel=self.kernel, graphs=graphs)

    def probe(self, blocks: int, layers: int | None = None) -> ModelRunner:
        """See `LoadedModel`."""
        return ModelRunner(self.llama, self._cache(blocks, layers), layers, self.kernel)

    def budget(self) -> KVBudget:
        """See `LoadedModel`."""
        block = block_bytes(self.config, self.llama.dtype)
        if self.llama.device.type == "cpu":
            return memory.MemoryBudget(resources.memory_limit(), resources.resident_bytes(), block)
        free, total = torch.cuda.mem_get_info(self.llama.device)
        return gpu.GpuBudget(total, free, block)

    def _cache(self, blocks: int, layers: int | None = None) -> KVCache:
        return KVCache(self.config, blocks, self.llama.dtype, layers, self.llama.device)


@dataclass(frozen=True, slots=True)
class Part:
    """Whose part of a model is loaded."""

    links: Links
    shares: Sequence[Share]


def load(
    checkpoint: Checkpoint,
    where: Device,
    asked: str | None,
    progress: Callable[[float], None],
    part: Part | None = None,
) -> TorchModel:
    """Bring the weights to the device; quantised ones are dequantised.

    Args:
        checkpoint: What to load.
        where: The device.
        asked: Type to compute in; None is the one that the device computes fastest.
        progress: Told the share that is loaded.
        part: With it the checkpoint is one rank's part of a model.

    Raises:
        ExchangeError: another rank does not come.
        InsufficientMemoryError: they do not fit.
        UnsupportedModelError: a tensor is missing or of an unknown type.
    """
    device = _device_of(where, part)
    dtype = dtype_of(device, asked)
    if device.type == "cpu":
        sharing = part.links.local_ranks if part else 1
        limit, engine = resources.memory_limit() // sharing, resources.resident_bytes()
        memory.check_weights_fit(checkpoint.config, dtype.itemsize, limit, engine)
    else:
        gpu.check_weights_fit(_weight_count(checkpoint.config) * dtype.itemsize, *torch.cuda.mem_get_info(device))
    some_matrix = checkpoint.layout("model.layers.0.mlp.down_proj.weight")
    stored = some_matrix.format if some_matrix else "F32"
    kernel = paged_kernel(device, checkpoint.config.head_dim, dtype)
    ranks = None
    if part is not None:
        ranks = Ranks(ProcessGroup(part.links, part.shares, device), part.shares[part.links.rank].vocabulary.first)
    return TorchModel(Llama(checkpoint, dtype, progress, device, ranks), stored, kernel)


def _device_of(where: Device, part: Part | None) -> torch.device:
    """Ranks of one pod have a GPU each. It becomes the one that streams, graphs and Triton take without being told."""
    if part is None or where == "cpu":
        return torch.device(where)
    device = torch.device(where, part.links.rank % part.links.local_ranks)
    torch.cuda.set_device(device)
    return device


def paged_kernel(device: torch.device, head_dim: int, dtype: torch.dtype) -> Kernel | None:
    """The Triton kernel where it can be compiled: on a GPU, with Triton and the C compiler that it launches with.

    Heads wider than `_WIDE` take more of a GPU's shared memory than those before Ampere have, and in float32 than most.
    """
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    if device.type != "cuda" or compiler is None or importlib.util.find_spec("triton") is None:
        return None
    if head_dim > _WIDE and (dtype == torch.float32 or torch.cuda.get_device_capability(device) < _AMPERE):
        return None
    from moorage_runtime.model.torch_path.paged_kernel import attend  # noqa: PLC0415 - builds for processors lack triton

    return attend


def dtype_of(device: torch.device, asked: str | None) -> torch.dtype:
    """The type to compute in: None is the one that this machine computes fastest."""
    if asked is not None:
        return DTYPES[asked]
    if device.type == "cuda":
        return gpu.default_dtype()
    # Without instructions for it, bfloat16 is computed slower than float32.
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # noqa: SLF001 - no public name
    return torch.bfloat16 if fast else torch.float32


def _weight_count(config: ModelConfig) -> int:
    """Numbers on the GPU, where tied embeddings are one tensor."""
    return memory.weight_count(config) - config.vocab_size * config.hidden_size * config.tied_embeddings
