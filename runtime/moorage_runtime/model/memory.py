"""How large the KV cache may be, and the refusal, with the figures, when it is too small to serve one full context."""

import math
from dataclasses import dataclass

from moorage_runtime.engine.blocks import BLOCK_TOKENS, blocks_for
from moorage_runtime.model.config import ModelConfig
from moorage_runtime.model.errors import InsufficientMemoryError

API_PROCESS_BYTES = 200 * 2**20
"""What the API process is left: 88 MiB were resident with SmolLM2's tokenizer at rest; the rest is for its clients."""
KV_SHARE = 0.9
"""Share of what is left that the KV cache takes: allocators fragment, and the kernel kills at the limit, not above."""
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """Where the memory of the container goes, in bytes."""

    limit: int
    engine: int
    """The engine process after its largest step, without KV cache: weights, libraries, working memory."""
    block: int
    """One block of the KV cache over all layers."""

    def kv_blocks(self, context_length: int, max_running: int) -> int:
        """Blocks of the KV cache: what fits, and no more than all running requests can use.

        Raises:
            InsufficientMemoryError: one request of `context_length` tokens does not fit.
        """
        fitting = self._fitting()
        needed = blocks_for(context_length)
        if fitting < needed:
            raise InsufficientMemoryError(self._refusal(context_length, fitting * BLOCK_TOKENS))
        return min(fitting, needed * max_running)

    def _fitting(self) -> int:
        return max(0, int((self.limit - self.engine - API_PROCESS_BYTES) * KV_SHARE) // self.block)

    def _refusal(self, context_length: int, fitting_tokens: int) -> str:
        kv = blocks_for(context_length) * self.block
        enough = self.engine + API_PROCESS_BYTES + math.ceil(kv / KV_SHARE)
        lower = f", or lower contextLength (--context-length) to {fitting_tokens}" if fitting_tokens else ""
        return (
            f"{_mib(kv)} of KV cache are needed for contextLength {context_length}, and {fitting_tokens} tokens fit: "
            f"of {_mib(self.limit)} memory the engine takes {_mib(self.engine)} and the API process "
            f"{_mib(API_PROCESS_BYTES)}; give it at least {_mib(enough)} (in a pod resources.limits.memory, else free "
            f"memory){lower}"
        )


def check_fits(weights: int, limit: int, engine: int) -> None:
    """Refuse before loading what would be killed while loading.

    Args:
        weights: Bytes of the weights in memory.
        limit: Bytes that the container may use.
        engine: Bytes that this process occupies now.

    Raises:
        InsufficientMemoryError: weights, this process and the API process exceed the limit.
    """
    needed = weights + engine + API_PROCESS_BYTES
    if needed > limit:
        raise InsufficientMemoryError(
            f"the weights take {_mib(weights)}, the engine {_mib(engine)} besides and the API process "
            f"{_mib(API_PROCESS_BYTES)}: more than the {_mib(limit)} there are; give it more than {_mib(needed)} "
            "(in a pod resources.limits.memory, else free memory), or take a smaller or quantised model"
        )


def check_weights_fit(config: ModelConfig, itemsize: int, limit: int, engine: int) -> None:
    """As `check_fits`, for a model whose weights all have the same size in bytes."""
    check_fits(weight_count(config) * itemsize, limit, engine)


def weight_count(config: ModelConfig) -> int:
    """Numbers in memory, less the few in norms and biases. Tied embeddings count twice: as rows, and packed as head."""
    mlp = 3 * config.hidden_size * config.intermediate_size
    attention = config.hidden_size * (config.qkv_size + config.heads * config.head_dim)
    return 2 * config.vocab_size * config.hidden_size + config.layers * (attention + mlp)


def _mib(size: int) -> str:
    return f"{math.ceil(size / _MIB)}Mi"
