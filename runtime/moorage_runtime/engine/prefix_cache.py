"""Which blocks of the KV cache hold which tokens, so that a prefix that was computed once is not computed again.

Keys and values of a position depend on every token before it. A full block is therefore known by its own tokens and by
the block before it, which stands for all that came before: a chain of hashes, as in vLLM's automatic prefix caching
(https://docs.vllm.ai/en/latest/design/prefix_caching/). The chain here is made of dictionary keys: a dictionary hashes
a key *and compares it*, so that a collision of hashes costs time and never serves another's keys and values.

A sequence that holds a block holds all blocks before it, and gives them up from the last to the first. So the block
that has rested longest is always a leaf of the tree of prefixes, and evicting it never cuts a chain.
"""

from collections import OrderedDict
from collections.abc import Sequence as Ordered

Namespace = tuple[str, ...]
"""Where chains start: prefixes are shared only within one. Today it is a tenant's salt; the digest of an adapter
belongs here too, because it changes keys and values. Their type does not: an engine has one, and its cache
ends with it.
"""

Key = tuple[int | Namespace, tuple[int, ...]]
"""The block before (or the namespace), and the tokens of the block."""


class BrokenChainError(Exception):
    """Something in the cache cannot be found from a namespace, or would be evicted before what depends on it."""


class PrefixCache:
    """A map between full, computed blocks and their keys. Blocks that no sequence holds are said to rest."""

    def __init__(self, block_tokens: int) -> None:
        self._block_tokens = block_tokens
        self._blocks: dict[Key, int] = {}
        self._keys: dict[int, Key] = {}
        self._resting: OrderedDict[int, None] = OrderedDict()
        """Longest at rest first."""

    @property
    def resting(self) -> int:
        """Blocks that no sequence holds: they can be evicted."""
        return len(self._resting)

    def __contains__(self, block: int) -> bool:
        """Whether the block can be found by its tokens."""
        return block in self._keys

    def match(self, namespace: Namespace, tokens: Ordered[int]) -> list[int]:
        """The blocks of the longest known prefix, first to last.

        It always ends before the last token: that one has to be computed, for its logits.
        """
        found: list[int] = []
        parent: int | Namespace = namespace
        size = self._block_tokens
        for end in range(size, len(tokens), size):
            block = self._blocks.get((parent, tuple(tokens[end - size : end])))
            if block is None:
                break
            found.append(block)
            parent = block
        return found

    def add(self, parent: int | Namespace, tokens: Ordered[int], block: int) -> int:
        """Make a computed block known; another one that holds the same is kept and returned instead."""
        known = self._blocks.setdefault((parent, tuple(tokens)), block)
        if known == block:
            self._keys[block] = (parent, tuple(tokens))
        return known

    def rest(self, block: int) -> None:
        """Nobody holds the block any more. To be called for the last block of a chain first."""
        self._resting[block] = None

    def wake(self, block: int) -> None:
        """Somebody holds the block again."""
        self._resting.pop(block, None)

    def evict(self) -> int:
        """Forget the block that has rested longest; it can be written anew. `KeyError` when none rests."""
        block, _ = self._resting.popitem(last=False)
        del self._blocks[self._keys.pop(block)]
        return block

    def check(self, held: set[int]) -> set[int]:
        """The blocks at rest, after comparing the maps with one another and with the blocks that sequences hold.

        Raises:
            BrokenChainError: they disagree.
        """
        if {block: key for key, block in self._blocks.items()} != self._keys:
            raise BrokenChainError("the two directions of the prefix cache disagree")
        resting = self._resting.keys()
        if self._keys.keys() - held != resting:
            raise BrokenChainError("a cached block that nobody holds does not rest, or the reverse")
        evicted: set[int] = set()
        for block in resting:
            evicted.add(block)
            self._check_parent(block, evicted)
        for block in self._keys.keys() & held:
            self._check_parent(block, evicted)
        return set(resting)

    def _check_parent(self, block: int, gone: set[int]) -> None:
        parent = self._keys[block][0]
        if isinstance(parent, int) and (parent in gone or parent not in self._keys):
            raise BrokenChainError(f"block {block} is cached behind block {parent}, which is not or is lost first")
