"""A model divided between ranks: which part is whose, what all must agree on, and the loading of one's own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from moorage_runtime import resources
from moorage_runtime.engine.errors import StartError
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

Backend = Literal["native", "torch-cpu", "torch-cuda"]


@dataclass(frozen=True, slots=True)
class Division:
    """A model and who gets which part of it.

    It keeps the files mapped, so it is not to live longer than loading does: pages that were read count as this
    process's memory.
    """

    settings: Settings
    whole: Checkpoint
    shares: tuple[Share, ...]
    backend: Backend
    """Who computes. All ranks take the same, because they do not exchange numbers in the same way."""
    because: str
    """Why it is torch on a processor, which nobody asks for; else empty."""

    @classmethod
    def open(cls, settings: Settings, ranks: int, local_ranks: int = 1) -> "Division":
        """Open a model; nothing is loaded yet.

        Args:
            settings: What is asked for.
            ranks: Of the whole group.
            local_ranks: Of them in this pod.

        Raises:
            StartError: this pod has fewer GPUs than ranks.
            UnsupportedModelError: the model cannot be computed, or not be divided between so many ranks.
        """
        whole = open_checkpoint(settings.model, settings.quantization)
        shares = shares_of(whole.config, ranks, blocks_of(whole))
        if device_of(settings.device) == "cuda":
            _check_gpus(local_ranks)
            return cls(settings, whole, shares, "torch-cuda", "")
        refusal = native.refusal(whole.config, settings.dtype)
        return cls(settings, whole, shares, "torch-cpu" if refusal else "native", refusal or "")

    @property
    def config(self) -> ModelConfig:
        """The whole model's."""
        return self.whole.config

    @property
    def by_torch(self) -> bool:
        """Whether torch computes, and exchanges."""
        return self.backend != "native"

    def hello(self, rank: int) -> Hello:
        """What a rank says of itself, its port aside."""
        quantization = self.settings.quantization or "no quantisation"
        computing = f"{self.backend}, {self._dtype()}, {quantization}"
        model = fingerprint(self.settings.model)
        return Hello(PROTOCOL, len(self.shares), rank, model, computing, port=0, because=self.because)

    def load(self, links: Links, threads: int, progress: Callable[[float], None]) -> PartModel:
        """Load the part of `links.rank`.

        Raises:
            ExchangeError: another rank does not come, where torch meets them.
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
        return "cuda" if self.backend == "torch-cuda" else "cpu"

    def _dtype(self) -> str:
        """What is computed in; the machine has a say where torch computes."""
        if not self.by_torch:
            return self.settings.dtype or "the stored type"
        import torch  # noqa: PLC0415 - as above

        from moorage_runtime.model.torch_path.load import dtype_of  # noqa: PLC0415 - as torch

        return str(dtype_of(torch.device(self._device()), self.settings.dtype)).removeprefix("torch.")


def _check_gpus(local_ranks: int) -> None:
    """Before the ranks meet: one without a GPU would end while the others wait for it."""
    import torch  # noqa: PLC0415 - as above

    if (gpus := torch.cuda.device_count()) < local_ranks:
        raise StartError(
            f"{local_ranks} ranks of this pod need a GPU each, and it has {gpus}; give it as many, or divide the ranks "
            "between more pods"
        )
