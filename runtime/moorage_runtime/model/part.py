"""A rank's part of a model: which it is, what all ranks must agree on, and its loading."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from moorage_runtime import resources
from moorage_runtime.group.fingerprint import fingerprint
from moorage_runtime.group.links import Links
from moorage_runtime.group.messages import PROTOCOL, Hello
from moorage_runtime.model import memory, native
from moorage_runtime.model.checkpoint import Checkpoint, open_checkpoint
from moorage_runtime.model.config import ModelConfig
from moorage_runtime.model.device import Device, device_of
from moorage_runtime.model.loaded import PartModel
from moorage_runtime.model.native_group import group_of
from moorage_runtime.model.settings import Settings
from moorage_runtime.model.sharded import part_of
from moorage_runtime.model.shares import Share, blocks_of, shares_of
from moorage_runtime.model.weights import packed_bytes

Path = Literal["native", "torch-cpu", "torch-cuda"]


@dataclass(frozen=True, slots=True)
class Parts:
    """A model and how it is divided."""

    settings: Settings
    whole: Checkpoint
    shares: tuple[Share, ...]
    path: Path
    """Who computes. All ranks take the same, because they do not exchange numbers in the same way."""

    @classmethod
    def open(cls, settings: Settings, ranks: int) -> "Parts":
        """Open it; nothing is loaded yet.

        Raises:
            UnsupportedModelError: it cannot be computed, or not be divided between so many ranks.
        """
        whole = open_checkpoint(settings.model, settings.quantization)
        device = device_of(settings.device)
        native_computes = device == "cpu" and native.refusal(whole.config, settings.dtype) is None
        path: Path = "native" if native_computes else "torch-cpu" if device == "cpu" else "torch-cuda"
        return cls(settings, whole, shares_of(whole.config, ranks, blocks_of(whole)), path)

    @property
    def config(self) -> ModelConfig:
        """The whole model's."""
        return self.whole.config

    @property
    def by_torch(self) -> bool:
        """Whether torch computes, and exchanges."""
        return self.path != "native"

    def hello(self, rank: int) -> Hello:
        """What a rank says of itself, its port aside."""
        quantization = self.settings.quantization or "no quantisation"
        computing = f"{self.path}, {self._dtype()}, {quantization}"
        return Hello(PROTOCOL, len(self.shares), rank, fingerprint(self.settings.model), computing, port=0)

    def load(self, links: Links, threads: int, progress: Callable[[float], None]) -> PartModel:
        """Load the part of `links.rank`.

        Raises:
            InsufficientMemoryError: the parts of this pod's ranks do not fit.
            UnsupportedModelError: a tensor is missing or of an unknown type.
        """
        if self.by_torch:
            return self._load_with_torch(links, threads, progress)
        parts = [part_of(self.whole, share) for share in self.shares]
        first = links.rank // links.local_ranks * links.local_ranks
        weights = sum(packed_bytes(part, self.settings.dtype) for part in parts[first : first + links.local_ranks])
        memory.check_fits(weights, resources.memory_limit(), resources.resident_bytes() * links.local_ranks)
        group = group_of(links, self.config, self.shares, threads)
        return native.load(parts[links.rank], self.settings.dtype, threads, progress, group)

    def _load_with_torch(self, links: Links, threads: int, progress: Callable[[float], None]) -> PartModel:
        import torch  # noqa: PLC0415 - takes seconds to load, and the kernels do without

        from moorage_runtime.model.torch_path.load import Part, load  # noqa: PLC0415 - as torch

        torch.set_num_threads(threads)
        part = part_of(self.whole, self.shares[links.rank])
        return load(part, self._device(), self.settings.dtype, progress, Part(links, self.shares))

    def _device(self) -> Device:
        return "cuda" if self.path == "torch-cuda" else "cpu"

    def _dtype(self) -> str:
        """What is computed in; the machine has a say where torch computes."""
        if not self.by_torch:
            return self.settings.dtype or "the stored type"
        import torch  # noqa: PLC0415 - as above

        from moorage_runtime.model.torch_path.load import dtype_of  # noqa: PLC0415 - as torch

        return str(dtype_of(torch.device(self._device()), self.settings.dtype)).removeprefix("torch.")
