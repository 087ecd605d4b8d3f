"""The KV cache of a group: every rank keeps its heads of every block, so the rank with the least room says how many."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from moorage_runtime import resources
from moorage_runtime.group.messages import Memory
from moorage_runtime.model.loaded import KVBudget
from moorage_runtime.model.memory import MemoryBudget


def memory_of(budget: KVBudget, rank: int, local_ranks: int) -> Memory:
    """What a rank tells the leader.

    Ranks of one pod share its memory; a GPU is its rank's alone. What the ranks have in common, the slots of their
    exchanges, is in all of them: the first rank of the pod tells of it.
    """
    if isinstance(budget, MemoryBudget):
        common = resources.shared_bytes() if rank % local_ranks else 0
        return Memory(f"pod {rank // local_ranks}", budget.limit, budget.engine - common, budget.block)
    from moorage_runtime.model.torch_path.gpu import GpuBudget  # noqa: PLC0415 - torch takes seconds to load

    if not isinstance(budget, GpuBudget):
        raise TypeError(f"{type(budget).__name__} is no budget of a rank")
    return Memory("", budget.total, budget.free, budget.block)


@dataclass(frozen=True, slots=True)
class GroupBudget:
    """See `moorage_runtime.model.loaded.KVBudget`."""

    parts: tuple[KVBudget, ...]

    @classmethod
    def of(cls, memories: Iterable[Memory]) -> "GroupBudget":
        """From what all ranks tell."""
        pods: dict[str, list[Memory]] = defaultdict(list)
        parts: list[KVBudget] = []
        for each in memories:
            if each.pool:
                pods[each.pool].append(each)
            else:
                parts.append(_gpu(each))
        return cls((*parts, *(_pod(ranks) for ranks in pods.values())))

    def kv_blocks(self, context_length: int, max_running: int) -> int:
        """See `KVBudget`."""
        return min(part.kv_blocks(context_length, max_running) for part in self.parts)


def _pod(ranks: list[Memory]) -> MemoryBudget:
    return MemoryBudget(
        limit=min(each.limit for each in ranks),
        engine=sum(each.used for each in ranks),
        block=sum(each.block for each in ranks),
    )


def _gpu(rank: Memory) -> KVBudget:
    from moorage_runtime.model.torch_path.gpu import GpuBudget  # noqa: PLC0415 - torch takes seconds to load

    return GpuBudget(total=rank.limit, free=rank.used, block=rank.block)
