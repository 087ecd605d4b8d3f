"""How much memory the KV cache gets, and what people read when it is too little."""

import pytest

from moorage_runtime.engine.blocks import BLOCK_TOKENS
from moorage_runtime.model.checkpoint import open_checkpoint
from moorage_runtime.model.errors import InsufficientMemoryError
from moorage_runtime.model.memory import API_PROCESS_BYTES, MemoryBudget, check_weights_fit, weight_count

MIB = 2**20
WEIGHTS = 85
"""MiB of the small model at 1000 bytes per weight."""


def budget(spare_mib, block_mib=1):
    """The engine takes 300 MiB, and so much is left besides it and the API process."""
    return MemoryBudget(limit=300 * MIB + API_PROCESS_BYTES + spare_mib * MIB, engine=300 * MIB, block=block_mib * MIB)


def test_a_tenth_of_what_is_left_stays_free():
    assert budget(100).kv_blocks(context_length=16, max_running=1000) == 90


def test_no_more_than_all_running_requests_can_use():
    assert budget(1000).kv_blocks(context_length=160, max_running=3) == 30


def test_a_context_that_does_not_fit_is_refused_with_what_to_do():
    with pytest.raises(InsufficientMemoryError) as refused:
        budget(100).kv_blocks(context_length=200 * BLOCK_TOKENS, max_running=4)
    assert str(refused.value) == (
        "200Mi of KV cache are needed for contextLength 3200, and 1440 tokens fit: of 600Mi memory the engine takes "
        "300Mi and the API process 200Mi; give it at least 723Mi (in a pod resources.limits.memory, else free memory), "
        "or lower contextLength (--context-length) to 1440"
    )


def test_the_limit_that_the_refusal_names_is_enough_and_so_is_the_length():
    length = 200 * BLOCK_TOKENS
    enough = 723 * MIB
    MemoryBudget(enough, 300 * MIB, MIB).kv_blocks(length, max_running=1)
    budget(100).kv_blocks(1440, max_running=1)


def test_without_any_room_no_shorter_length_is_proposed():
    with pytest.raises(InsufficientMemoryError, match="0 tokens fit") as refused:
        budget(-50).kv_blocks(context_length=16, max_running=1)
    assert "lower" not in str(refused.value)


def test_weights_that_do_not_fit_are_refused_before_they_are_loaded(small_model):
    config = open_checkpoint(small_model).config
    itemsize = 1000  # so that the small model weighs as much as a real one
    needed = weight_count(config) * itemsize + API_PROCESS_BYTES + 50 * MIB
    check_weights_fit(config, itemsize, limit=needed, engine=50 * MIB)
    with pytest.raises(InsufficientMemoryError) as refused:
        check_weights_fit(config, itemsize, limit=needed - 10 * MIB, engine=50 * MIB)
    assert str(refused.value) == (
        f"the weights take {WEIGHTS}Mi, the engine 50Mi besides and the API process 200Mi: more than the "
        f"{WEIGHTS + 240}Mi there are; give it more than {WEIGHTS + 250}Mi (in a pod resources.limits.memory, else "
        "free memory), or take a smaller or quantised model"
    )
