"""What was computed once is found by its tokens, by nobody else's, and is lost from its end."""

import pytest

from moorage_runtime.engine.blocks import BLOCK_TOKENS, BlockManager, IntegrityError

NOBODY = ("",)
FIRST, SECOND, THIRD = ([digit] * BLOCK_TOKENS for digit in (1, 2, 3))


class Collision(int):
    """A token whose hash is that of every other."""

    def __hash__(self):
        return 7


def computed(manager, tokens, namespace=NOBODY):
    """The blocks of a sequence that has computed these tokens."""
    held = []
    manager.grow(held, len(tokens))
    manager.publish(held, namespace, tokens, range(len(tokens) // BLOCK_TOKENS))
    return held


def test_the_longest_known_prefix_is_found():
    manager = BlockManager(8)
    held = computed(manager, FIRST + SECOND)
    assert manager.match(NOBODY, [*FIRST, *SECOND, *THIRD]) == held
    assert manager.match(NOBODY, [*FIRST, *THIRD]) == held[:1]
    assert manager.match(NOBODY, [*SECOND, *THIRD]) == []  # the same tokens behind others are another block


def test_the_last_token_is_never_found_because_it_must_be_computed():
    manager = BlockManager(8)
    held = computed(manager, FIRST + SECOND)
    assert manager.match(NOBODY, FIRST + SECOND) == held[:1]
    assert manager.match(NOBODY, [*FIRST, *SECOND, 9]) == held


def test_a_block_that_is_not_full_is_not_known():
    manager = BlockManager(8)
    computed(manager, [*FIRST, 5])
    assert len(manager.match(NOBODY, [*FIRST, 5, *SECOND])) == 1


def test_namespaces_share_nothing():
    manager = BlockManager(8)
    computed(manager, FIRST, ("tenant",))
    assert manager.match(NOBODY, FIRST + SECOND) == []
    assert len(manager.match(("tenant",), FIRST + SECOND)) == 1


def test_colliding_hashes_serve_nobody_anothers_block():
    manager = BlockManager(8)
    one, other = ([Collision(digit)] * BLOCK_TOKENS for digit in (1, 2))
    assert hash(tuple(one)) == hash(tuple(other))
    blocks = computed(manager, one) + computed(manager, other)
    assert len(set(blocks)) == 2
    assert manager.match(NOBODY, [*one, 0]) == blocks[:1]
    assert manager.match(NOBODY, [*other, 0]) == blocks[1:]


def test_what_is_released_stays_cached_until_its_block_is_needed():
    manager = BlockManager(3)
    held = computed(manager, FIRST + SECOND)
    manager.release(held)
    assert (manager.free, manager.cached, manager.used, manager.available) == (1, 2, 0, 3)
    other = []
    manager.grow(other, 2 * BLOCK_TOKENS)
    assert (manager.free, manager.cached, manager.used) == (0, 1, 2)
    assert len(manager.match(NOBODY, [*FIRST, *SECOND, 9])) == 1  # the last block went first
    manager.check([other])


def test_the_one_used_longest_ago_goes_first():
    manager = BlockManager(3)
    held = [computed(manager, tokens) for tokens in (FIRST, SECOND, THIRD)]
    for blocks in held:
        manager.release(blocks)
    again = []
    manager.share(again, manager.match(NOBODY, [*FIRST, 9]))
    manager.release(again)
    manager.grow(again, BLOCK_TOKENS)
    assert [len(manager.match(NOBODY, [*tokens, 9])) for tokens in (FIRST, SECOND, THIRD)] == [1, 0, 1]


def test_a_shared_block_is_freed_with_its_last_holder():
    manager = BlockManager(4)
    first, second = computed(manager, FIRST), []
    manager.share(second, manager.match(NOBODY, [*FIRST, 9]))
    assert (second, manager.used) == (first, 1)
    manager.check([first, second])
    manager.release(first)
    assert (manager.used, manager.cached) == (1, 0)
    manager.release(second)
    assert (manager.used, manager.cached) == (0, 1)


def test_sharing_tells_beforehand_how_many_blocks_become_used():
    manager = BlockManager(4)
    held = computed(manager, FIRST + SECOND)
    assert manager.unheld(held) == 0
    blocks = list(held)
    manager.release(held)
    assert manager.unheld(blocks) == 2


def test_what_two_computed_at_once_is_kept_once():
    manager = BlockManager(4)
    first, second = [], []
    for held in (first, second):
        manager.grow(held, 2 * BLOCK_TOKENS)
    manager.publish(first, NOBODY, FIRST + SECOND, range(2))
    manager.publish(second, NOBODY, FIRST + THIRD, range(2))
    assert first[0] == second[0]
    assert first[1] != second[1]
    assert (manager.free, manager.used) == (1, 3)
    manager.check([first, second])


@pytest.mark.parametrize("fault", ["lost parent", "wrong order", "lost key"])
def test_check_finds_a_broken_chain(fault):
    manager = BlockManager(4)
    held = computed(manager, FIRST + SECOND)
    blocks = list(held)
    manager.release(held)
    cache = manager._cache
    if fault == "lost parent":
        del cache._blocks[cache._keys.pop(blocks[0])]
        del cache._resting[blocks[0]]
        manager._free.append(blocks[0])
    elif fault == "wrong order":
        cache._resting.move_to_end(blocks[1])
    else:
        cache._keys.pop(blocks[1])
    with pytest.raises(IntegrityError):
        manager.check([])
