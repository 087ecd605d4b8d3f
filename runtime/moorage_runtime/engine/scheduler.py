"""Which sequences compute how many tokens in the next step.

Continuous batching (Orca, OSDI 2022) with chunked prefill (Sarathi-Serve, OSDI 2024): first every decoding sequence
gets its one token, the rest of the step's budget goes to prompts, in the order of the policy. Four rules beyond that:

- *Admission.* A sequence starts when the blocks of all its tokens can be had and one more for each that runs already,
  so that what runs can grow before anything is preempted.
- *Preemption pauses.* Who must give up its place keeps its blocks. When memory is short, the last in order of those
  who wait loses them, then the last of those who run; what was full stays in the prefix cache until it is evicted, the
  rest is computed again.
- *Prefixes.* A sequence takes up what the prefix cache knows of it. When a running one computes what comes next in
  this very step, it waits for that: a burst of one prompt, or `n` answers to it, compute it once. Its place is kept
  meanwhile, and others behind it start.
- *Strict order* otherwise: nobody overtakes who waits for memory, so that nobody starves for being large.
"""

from bisect import bisect_left, insort
from operator import attrgetter

from moorage_runtime.engine import policy
from moorage_runtime.engine.blocks import BLOCK_TOKENS, BlockManager, IntegrityError, blocks_for
from moorage_runtime.engine.plan import Chunk, Limits, StepPlan
from moorage_runtime.engine.sequence import Sequence

_order = attrgetter("order")


class Scheduler:
    """Two queues, both kept in order. It reads no clock and draws no random number: same calls, same plans."""

    def __init__(self, blocks: BlockManager, limits: Limits) -> None:
        self._blocks = blocks
        self._policy = policy.named(limits.policy)
        self._max_running = limits.max_running
        # Every running sequence can decode in every step, whatever the budget for prompts.
        self._budget = max(limits.token_budget, limits.max_running)
        self._step = 0
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []

    def add(self, sequence: Sequence) -> None:
        """Let a new sequence wait for its turn."""
        self._policy.join(sequence)
        self._wait(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence that has ended, wherever it is, and release its blocks."""
        queue = self.running if sequence.running else self.waiting
        del queue[bisect_left(queue, sequence.order, key=_order)]
        sequence.running = False
        self._blocks.release(sequence.blocks)

    def schedule(self) -> StepPlan:
        """Decide one step: blocks are taken, `computed` is left for the engine to advance."""
        self._step += 1
        if self._policy.revise(self.running, self.waiting, self._step):
            self.running.sort(key=_order)
            self.waiting.sort(key=_order)
        preempted = self._grow()
        admitted = self._admit(preempted)
        return StepPlan(self._chunks(), tuple(preempted), tuple(admitted))

    def check(self) -> None:
        """Compare the queues with what the sequences say of themselves.

        Raises:
            IntegrityError: they disagree.
        """
        for queue, running in ((self.running, True), (self.waiting, False)):
            orders = [sequence.order for sequence in queue]
            if orders != sorted(orders) or any(sequence.running != running for sequence in queue):
                raise IntegrityError("a queue is out of order, or holds a sequence that is not of it")

    def _wait(self, sequence: Sequence) -> None:
        sequence.waiting_since = self._step
        insort(self.waiting, sequence, key=_order)

    # ── room for what runs ──

    def _grow(self) -> list[Sequence]:
        """Give each running sequence the block for its next token; those behind it that lost their places for it."""
        preempted: list[Sequence] = []
        served = 0
        while served < len(self.running):
            sequence = self.running[served]
            tokens = len(sequence.tokens)
            if tokens <= len(sequence.blocks) * BLOCK_TOKENS:
                served += 1
            elif self._blocks.can_grow(sequence.blocks, tokens):
                self._blocks.grow(sequence.blocks, tokens)
                served += 1
            elif (paused := self._last_paused()) is not None:
                self._take_blocks(paused)
            else:
                preempted.append(self._pause_last())
                self._take_blocks(preempted[-1])
        return preempted

    def _last_paused(self) -> Sequence | None:
        return next((sequence for sequence in reversed(self.waiting) if sequence.blocks), None)

    def _pause_last(self) -> Sequence:
        """Move the last running sequence to those who wait; it keeps its blocks."""
        sequence = self.running.pop()
        sequence.running = False
        self._wait(sequence)
        return sequence

    def _take_blocks(self, sequence: Sequence) -> None:
        """What was full stays in the cache, to be found when the sequence runs again or evicted before."""
        self._blocks.release(sequence.blocks)
        sequence.computed = sequence.published = 0

    # ── new places ──

    def _admit(self, preempted: list[Sequence]) -> list[Sequence]:
        """Let sequences run, in order, while places, blocks and budget last; those who do so for the first time."""
        first: list[Sequence] = []
        kept = 0  # places of those who wait for a prefix: `waiting[:kept]`
        rank, budget = None, 0
        while kept < len(self.waiting):
            sequence = self.waiting[kept]
            if sequence.rank != rank:
                rank, budget = sequence.rank, self._budget_for(sequence.rank)
            if budget <= 0 or not self._has_place(sequence, kept):
                break
            prefix = [] if sequence.blocks else self._blocks.match(sequence.namespace, sequence.tokens)
            if not sequence.blocks and self._is_being_computed(sequence, len(prefix) * BLOCK_TOKENS):
                kept += 1
                continue
            if not self._make_way(sequence, prefix, kept, preempted):
                break
            del self.waiting[kept]
            if self._start(sequence, prefix):
                first.append(sequence)
            budget -= sequence.pending
        return first

    def _budget_for(self, rank: int) -> int:
        """What the decoding sequences, and the prompts that are no later in order, leave of a step's tokens."""
        before = (other.pending for other in self.running if other.rank <= rank or other.pending == 1)
        return self._budget - sum(before)

    def _has_place(self, sequence: Sequence, kept: int) -> bool:
        free = len(self.running) + kept < self._max_running
        return free or self._may_pause(sequence)

    def _may_pause(self, sequence: Sequence) -> bool:
        """Whether the last running sequence gives way to this one: by rank only, never for arriving later."""
        return bool(self.running) and self.running[-1].rank > sequence.rank

    def _is_being_computed(self, sequence: Sequence, cached: int) -> bool:
        """Whether a running sequence computes full blocks beyond the `cached` tokens in this step that this one needs.

        Only one of the same or a smaller rank: it goes before this one in any case. There is budget left for this one,
        so all that is pending of the other is computed in this step, and nobody waits longer than that.
        """
        for other in self.running:
            if other.pending > 1 and other.rank <= sequence.rank and other.namespace == sequence.namespace:
                same = _common_prefix(other.tokens, sequence.tokens)
                if same > cached and other.computed < same:
                    return True
        return False

    def _make_way(self, sequence: Sequence, prefix: list[int], kept: int, preempted: list[Sequence]) -> bool:
        """Have a place and the blocks ready for a sequence, at the cost of those it goes before."""
        lacking = self._lacking(sequence, prefix, kept)
        if lacking > 0 and lacking > self._obtainable(sequence):
            return False
        if len(self.running) + kept >= self._max_running:
            preempted.append(self._pause_last())
        while self._lacking(sequence, prefix, kept) > 0:
            paused = self._last_paused()
            if paused is not None and paused.order > sequence.order:
                self._take_blocks(paused)
            elif self._may_pause(sequence):
                preempted.append(self._pause_last())
            else:
                return False
        return True

    def _lacking(self, sequence: Sequence, prefix: list[int], kept: int) -> int:
        """Blocks that are missing for all its tokens and for one more for each that runs or keeps a place."""
        needed = blocks_for(sequence.length) - len(sequence.blocks) - len(prefix) + self._blocks.unheld(prefix)
        return needed + len(self.running) + kept - self._blocks.available

    def _obtainable(self, sequence: Sequence) -> int:
        """Blocks that those behind it could give up, at most: some may be held by others as well."""
        paused = sum(len(other.blocks) for other in self.waiting if other.order > sequence.order)
        running = sum(len(other.blocks) + 1 for other in self.running if other.rank > sequence.rank)
        return paused + running

    def _start(self, sequence: Sequence, prefix: list[int]) -> bool:
        """Let a sequence run from what is computed of it; whether this is the first time."""
        if prefix:
            self._blocks.share(sequence.blocks, prefix)
            sequence.published = len(prefix)
            sequence.computed = len(prefix) * BLOCK_TOKENS
        self._blocks.grow(sequence.blocks, sequence.length)
        sequence.running = True
        insort(self.running, sequence, key=_order)
        if sequence.cached_prompt_tokens is not None:
            return False
        sequence.cached_prompt_tokens = sequence.told = sequence.computed
        return True

    # ── the step ──

    def _chunks(self) -> tuple[Chunk, ...]:
        prompts = []
        chunks = []
        for sequence in self.running:
            if len(sequence.tokens) - sequence.computed == 1:
                chunks.append(Chunk(sequence, sequence.computed, 1, samples=True))
            else:
                prompts.append(sequence)
        budget = self._budget - len(chunks)
        for sequence in prompts:
            count = min(sequence.pending, budget)
            if count == 0:
                break
            budget -= count
            chunks.append(Chunk(sequence, sequence.computed, count, samples=count == sequence.pending))
        return tuple(chunks)


def _common_prefix(one: list[int], other: list[int]) -> int:
    """Tokens in the full blocks at the beginning that are the same, without the last token of `other`."""
    same = 0
    limit = min(len(one), len(other) - 1)
    while (end := same + BLOCK_TOKENS) <= limit and one[same:end] == other[same:end]:
        same = end
    return same
