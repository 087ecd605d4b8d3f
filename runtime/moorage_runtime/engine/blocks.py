"""Who holds which block of the KV cache.

The cache is cut into blocks of `BLOCK_TOKENS` positions and a sequence holds a list of them, so that memory is taken as
a sequence grows and nothing is lost between sequences (PagedAttention, Kwon et al., SOSP 2023). Blocks are counted by
reference, so that one block may stand in the tables of several sequences.
"""

from collections import Counter, deque
from collections.abc import Iterable

BLOCK_TOKENS = 16
"""Positions in a block: vLLM's default on CPU and GPU; the last block of a sequence wastes 8 on average."""


class OutOfBlocksError(Exception):
    """More blocks were asked for than are free; `can_grow` was not asked first."""


class IntegrityError(Exception):
    """Blocks and their references do not add up: the engine must not go on."""


def blocks_for(tokens: int) -> int:
    """Blocks that hold this many positions."""
    return -(-tokens // BLOCK_TOKENS)


class BlockManager:
    """Hands out the blocks `0 … total - 1`. Every operation costs as much as the blocks it moves."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._references = [0] * total
        self._free = deque(range(total))

    @property
    def free(self) -> int:
        """Blocks that nobody holds."""
        return len(self._free)

    @property
    def used(self) -> int:
        """Blocks that somebody holds."""
        return self.total - len(self._free)

    def can_grow(self, held: list[int], tokens: int, margin: int = 0) -> bool:
        """Whether `grow` succeeds and leaves `margin` blocks free."""
        return blocks_for(tokens) - len(held) + margin <= self.free

    def grow(self, held: list[int], tokens: int) -> None:
        """Append blocks to `held` until it holds `tokens` positions.

        Raises:
            OutOfBlocksError: too few are free; nothing was taken.
        """
        missing = blocks_for(tokens) - len(held)
        if missing > self.free:
            raise OutOfBlocksError(f"{missing} blocks wanted, {self.free} of {self.total} free")
        for _ in range(missing):
            block = self._free.popleft()
            self._references[block] = 1
            held.append(block)

    def release(self, held: list[int]) -> None:
        """Give up one reference to each of `held` and empty the list; blocks without references become free."""
        for block in held:
            self._references[block] -= 1
            if self._references[block] == 0:
                self._free.append(block)
        held.clear()

    def check(self, tables: Iterable[list[int]]) -> None:
        """Compare the counts with the block tables of all sequences.

        Raises:
            IntegrityError: a block is lost, free and held, or counted wrongly.
        """
        held = Counter(block for table in tables for block in table)
        wrong = [block for block, count in enumerate(self._references) if count != held[block]]
        if wrong:
            raise IntegrityError(f"blocks {wrong[:8]} have references that no sequence holds, or the reverse")
        if sorted([*self._free, *held]) != list(range(self.total)):
            raise IntegrityError(f"{self.free} free and {len(held)} held blocks are not the {self.total} there are")
