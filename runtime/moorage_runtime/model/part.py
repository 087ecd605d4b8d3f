"""A rank's part of a model: which it is, what all ranks must agree on, and its loading."""

from collections.abc import Callable
from dataclasses import dataclass

from moorage_runtime import resources
from moorage_runtime.group.fingerprint import fingerprint
from moorage_runtime.group.links import Links
from moorage_runtime.group.messages import PROTOCOL, Hello
from moorage_runtime.model import memory, native
from moorage_runtime.model.checkpoint import Checkpoint, open_checkpoint
from moorage_runtime.model.config import ModelConfig
from moorage_runtime.model.device import device_of
from moorage_runtime.model.errors import UnsupportedModelError
from moorage_runtime.model.loaded import PartModel
from moorage_runtime.model.native_group import group_of
from moorage_runtime.model.settings import Settings
from moorage_runtime.model.sharded import part_of
from moorage_runtime.model.shares import Share, blocks_of, shares_of
from moorage_runtime.model.weights import packed_bytes


@dataclass(frozen=True, slots=True)
class Parts:
    """A model and how it is divided."""

    settings: Settings
    whole: Checkpoint
    shares: tuple[Share, ...]

    @classmethod
    def open(cls, settings: Settings, ranks: int) -> "Parts":
        """Open it; nothing is loaded yet.

        Raises:
            UnsupportedModelError: it cannot be computed, or not be divided between so many ranks.
        """
        whole = open_checkpoint(settings.model, settings.quantization)
        if (device := device_of(settings.device)) != "cpu":
            raise UnsupportedModelError(f"several ranks compute on processors only, not on {device}")
        if why_not := native.refusal(whole.config, settings.dtype):
            raise UnsupportedModelError(f"several ranks compute by the C++ kernels only: {why_not}")
        return cls(settings, whole, shares_of(whole.config, ranks, blocks_of(whole)))

    @property
    def config(self) -> ModelConfig:
        """The whole model's."""
        return self.whole.config

    def hello(self, rank: int) -> Hello:
        """What a rank says of itself, its port aside."""
        asked = (self.settings.dtype or "the stored type", self.settings.quantization or "no quantisation")
        return Hello(PROTOCOL, len(self.shares), rank, fingerprint(self.settings.model), ", ".join(asked), port=0)

    def load(self, links: Links, threads: int, progress: Callable[[float], None]) -> PartModel:
        """Load the part of `links.rank`.

        Raises:
            InsufficientMemoryError: the parts of this pod's ranks do not fit.
            UnsupportedModelError: a tensor is missing or of an unknown type.
        """
        parts = [part_of(self.whole, share) for share in self.shares]
        first = links.rank // links.local_ranks * links.local_ranks
        weights = sum(packed_bytes(part, self.settings.dtype) for part in parts[first : first + links.local_ranks])
        memory.check_fits(weights, resources.memory_limit(), resources.resident_bytes() * links.local_ranks)
        group = group_of(links, self.config, self.shares, threads)
        return native.load(parts[links.rank], self.settings.dtype, threads, progress, group)
