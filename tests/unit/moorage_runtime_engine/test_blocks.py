"""Blocks of the KV cache: taken, shared, given back, and never lost."""

import pytest

from moorage_runtime.engine.blocks import BLOCK_TOKENS, BlockManager, IntegrityError, OutOfBlocksError, blocks_for


@pytest.mark.parametrize(("tokens", "blocks"), [(0, 0), (1, 1), (BLOCK_TOKENS, 1), (BLOCK_TOKENS + 1, 2)])
def test_a_position_beyond_a_block_needs_the_next(tokens, blocks):
    assert blocks_for(tokens) == blocks


def test_growing_takes_only_what_is_missing():
    manager, held = BlockManager(4), []
    manager.grow(held, BLOCK_TOKENS)
    first = list(held)
    manager.grow(held, BLOCK_TOKENS + 1)
    assert held[:1] == first
    assert (len(held), manager.free, manager.used) == (2, 2, 2)


def test_too_few_blocks_take_nothing():
    manager, held = BlockManager(2), []
    assert not manager.can_grow(held, 3 * BLOCK_TOKENS)
    with pytest.raises(OutOfBlocksError, match="3 blocks wanted, 2 of 2 left"):
        manager.grow(held, 3 * BLOCK_TOKENS)
    assert (held, manager.free) == ([], 2)


def test_the_margin_stays_free():
    manager = BlockManager(3)
    assert manager.can_grow([], 2 * BLOCK_TOKENS, margin=1)
    assert not manager.can_grow([], 2 * BLOCK_TOKENS, margin=2)


def test_release_empties_the_table_and_frees_the_blocks():
    manager, held = BlockManager(2), []
    manager.grow(held, 2 * BLOCK_TOKENS)
    manager.release(held)
    assert (held, manager.free) == ([], 2)
    manager.check([])


def test_check_finds_a_block_that_nobody_holds():
    manager, held = BlockManager(2), []
    manager.grow(held, 1)
    manager.check([held])
    with pytest.raises(IntegrityError):
        manager.check([])


def test_check_finds_a_block_held_twice():
    manager, held = BlockManager(2), []
    manager.grow(held, 1)
    with pytest.raises(IntegrityError):
        manager.check([held, held])
