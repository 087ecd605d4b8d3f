"""Who holds which block of the KV cache.

The cache is cut into blocks of `BLOCK_TOKENS` positions and a sequence holds a list of them, so that memory is taken as
a sequence grows and nothing is lost between sequences (PagedAttention, Kwon et al., SOSP 2023). Blocks are counted by
reference, so that one block may stand in the tables of several sequences.

A block is *used* while a sequence holds it, *cached* when nobody does but its content is still known by its tokens
(`prefix_cache`), else *free*. Only full blocks whose every position is computed are ever shared, and positions are
written once, in order: **a shared block is never written to**.
"""

from collections import Counter
from collections.abc import Iterable
from collections.abc import Sequence as Ordered

from moorage_runtime.engine.prefix_cache import BrokenChainError, Namespace, PrefixCache

BLOCK_TOKENS = 16
"""Positions in a block: vLLM's default on CPU and GPU; the last block of a sequence wastes 8 on average."""


class OutOfBlocksError(Exception):
    """More blocks were asked for than there are; `can_grow` was not asked first."""


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
        # A stack: what was freed last is taken first, and memory that was never touched stays so as long as it can.
        self._free = list(reversed(range(total)))
        self._cache = PrefixCache(BLOCK_TOKENS)

    @property
    def free(self) -> int:
        """Blocks that nobody holds and nobody could find."""
        return len(self._free)

    @property
    def cached(self) -> int:
        """Blocks that nobody holds but that a sequence with the same tokens could take up."""
        return self._cache.resting

    @property
    def available(self) -> int:
        """Blocks that nobody holds."""
        return len(self._free) + self._cache.resting

    @property
    def used(self) -> int:
        """Blocks that somebody holds."""
        return self.total - self.available

    def can_grow(self, held: list[int], tokens: int, margin: int = 0) -> bool:
        """Whether `grow` succeeds and leaves `margin` blocks that nobody holds."""
        return blocks_for(tokens) - len(held) + margin <= self.available

    def grow(self, held: list[int], tokens: int) -> None:
        """Append blocks to `held` until it holds `tokens` positions: free ones, then those cached longest ago.

        Raises:
            OutOfBlocksError: too few are left; nothing was taken.
        """
        missing = blocks_for(tokens) - len(held)
        if missing > self.available:
            raise OutOfBlocksError(f"{missing} blocks wanted, {self.available} of {self.total} left")
        for _ in range(missing):
            block = self._free.pop() if self._free else self._cache.evict()
            self._references[block] = 1
            held.append(block)

    def match(self, namespace: Namespace, tokens: Ordered[int]) -> list[int]:
        """The blocks that hold the longest known prefix of `tokens`, but never the last token. Nothing is taken."""
        return self._cache.match(namespace, tokens)

    def unheld(self, blocks: Iterable[int]) -> int:
        """How many of these nobody holds, so that sharing them makes fewer available."""
        return sum(1 for block in blocks if not self._references[block])

    def share(self, held: list[int], blocks: Iterable[int]) -> None:
        """Append blocks that `match` found to `held`: for reading only."""
        for block in blocks:
            self._refer(block)
            held.append(block)

    def publish(self, held: list[int], namespace: Namespace, tokens: Ordered[int], full: range) -> None:
        """Make the blocks `held[i] for i in full`, whose positions are all computed, known by their tokens.

        Where another sequence has computed the same meanwhile, `held` gets its block and its own becomes free: a
        sequence that holds a known block thus holds all blocks before it in the chain.
        """
        for index in full:
            parent = held[index - 1] if index else namespace
            block = held[index]
            known = self._cache.add(parent, tokens[index * BLOCK_TOKENS : (index + 1) * BLOCK_TOKENS], block)
            if known != block:
                self._refer(known)
                held[index] = known
                self._references[block] = 0
                self._free.append(block)

    def release(self, held: list[int]) -> None:
        """Give up one reference to each of `held` and empty the list; what nobody holds is cached or free."""
        for block in reversed(held):
            self._references[block] -= 1
            if self._references[block] == 0:
                if block in self._cache:
                    self._cache.rest(block)
                else:
                    self._free.append(block)
        held.clear()

    def check(self, tables: Iterable[list[int]]) -> None:
        """Compare the counts with the block tables of all sequences: free + cached + used == all, and chains whole.

        Raises:
            IntegrityError: a block is lost, in two places, counted wrongly, or cached where nobody finds it.
        """
        held = Counter(block for table in tables for block in table)
        expected = [held[block] for block in range(self.total)] if held else [0] * self.total
        if self._references != expected:
            raise IntegrityError("blocks have references that no sequence holds, or the reverse")
        try:
            cached = self._cache.check(set(held))
        except BrokenChainError as error:
            raise IntegrityError(str(error)) from error
        counts = (len(self._free), len(cached), len(held))
        if sum(counts) != self.total or len({*self._free, *cached, *held}) != self.total:
            raise IntegrityError("{} free, {} cached and {} used blocks".format(*counts) + f" are not {self.total}")

    def _refer(self, block: int) -> None:
        if self._references[block] == 0:
            self._cache.wake(block)
        self._references[block] += 1
