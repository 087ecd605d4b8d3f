"""How large the KV cache of several ranks may be, from what each of them tells."""

import pytest

from moorage_runtime import resources
from moorage_runtime.engine.blocks import BLOCK_TOKENS
from moorage_runtime.group.messages import Loaded, Measure, Memory
from moorage_runtime.group.place import Address, Place
from moorage_runtime.model.errors import InsufficientMemoryError
from moorage_runtime.model.group_memory import GroupBudget, memory_of
from moorage_runtime.model.group_model import GroupModel
from moorage_runtime.model.memory import API_PROCESS_BYTES, MemoryBudget
from moorage_runtime.model.torch_path.gpu import GpuBudget
from tests.ranks import Ranks

MIB = 2**20
MANY = 10**6


def rank(pool, spare_mib, used_mib=100, block_mib=1, ranks=1):
    """One of the ranks of a pod, in which they leave so much besides each other and the API process."""
    limit = ranks * used_mib * MIB + API_PROCESS_BYTES + spare_mib * MIB
    return Memory(pool, limit, used_mib * MIB, block_mib * MIB)


def blocks(*memories):
    return GroupBudget.of(memories).kv_blocks(BLOCK_TOKENS, MANY)


def test_ranks_of_a_pod_share_its_memory_and_a_block_is_a_part_of_each():
    assert blocks(rank("pod 0", 100)) == 90
    assert blocks(rank("pod 0", 100, ranks=2), rank("pod 0", 100, ranks=2)) == 45
    wide, narrow = rank("pod 0", 90, block_mib=2, ranks=2), rank("pod 0", 90, block_mib=1, ranks=2)
    assert blocks(wide, narrow) == 27


def test_pods_have_memory_of_their_own_and_the_smallest_room_counts():
    assert blocks(rank("pod 0", 100), rank("pod 1", 40), rank("pod 2", 500)) == 36
    assert blocks(rank("pod 0", 100), rank("pod 1", 100)) == 90


def test_a_gpu_is_one_ranks_alone():
    gpu = Memory("", 1000 * MIB, 100 * MIB, MIB)
    assert blocks(gpu, gpu) == 89
    assert blocks(gpu, Memory("", 1000 * MIB, 50 * MIB, MIB)) == 44


def test_a_pod_that_has_no_room_for_one_request_refuses():
    with pytest.raises(InsufficientMemoryError, match="144 tokens fit"):
        GroupBudget.of([rank("pod 0", 1000), rank("pod 1", 10)]).kv_blocks(100 * BLOCK_TOKENS, MANY)


@pytest.mark.parametrize(
    ("number", "local", "pool", "used"),
    [
        (0, 4, "pod 0", 1000),
        (1, 4, "pod 0", 700),
        (3, 4, "pod 0", 700),
        (4, 4, "pod 1", 1000),
        (5, 4, "pod 1", 700),
        (2, 1, "pod 2", 1000),
    ],
)
def test_what_the_ranks_of_a_pod_have_in_common_counts_once(monkeypatch, number, local, pool, used):
    """The slots of the exchanges are memory of every rank that has looked at them, and one and the same."""
    monkeypatch.setattr(resources, "shared_bytes", lambda: 300)
    budget = MemoryBudget(limit=5000, engine=1000, block=16)
    assert memory_of(budget, number, local) == Memory(pool, 5000, used, 16)


def test_what_a_gpu_tells_is_its_own():
    assert memory_of(GpuBudget(total=9, free=5, block=2), 3, 4) == Memory("", 9, 5, 2)


class Told:
    """A leader of ranks that are threads of this process: what it would be told over its streams."""

    def __init__(self, models, local_ranks):
        self.place = Place(len(models), 0, local_ranks, Address("leader", 1))
        self._models = models

    def tell(self, message):
        assert message == Measure()

    def hear(self, kind, _seconds=0.0):
        others = enumerate(self._models[1:], 1)
        if kind is Loaded:
            return [Loaded(model.weight_bytes) for _, model in others]
        return [memory_of(model.budget(), number, self.place.local_ranks) for number, model in others]


@pytest.mark.parametrize("local", [3, 1])
def test_a_group_measures_what_all_its_ranks_leave(monkeypatch, small_model, local):
    """Three ranks in a pod, or in pods of their own: two hold a copy of the first KV head, one has the second."""
    ranks = Ranks(small_model, 3, dtype="float32")
    resident = 100 * MIB
    limit = local * resident + API_PROCESS_BYTES + 10 * MIB
    monkeypatch.setattr(resources, "memory_limit", lambda: limit)
    monkeypatch.setattr(resources, "resident_bytes", lambda: resident)
    monkeypatch.setattr(resources, "shared_bytes", lambda: 0)
    model = GroupModel(ranks.models[0], ranks.config, Told(ranks.models, local))
    assert model.weight_bytes == sum(each.weight_bytes for each in ranks.models)
    block = ranks.config.layers * BLOCK_TOKENS * 2 * ranks.config.head_dim * 4  # keys and values of one KV head
    assert model.budget().kv_blocks(BLOCK_TOKENS, MANY) == int(10 * MIB * 0.9) // (local * block)
