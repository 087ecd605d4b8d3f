"""Which sequences compute how many tokens in the next step.

Continuous batching (Orca, OSDI 2022) with chunked prefill (Sarathi-Serve, OSDI 2024): first every decoding sequence
gets its one token, the rest of the step's budget goes to prompts, in order of (priority, arrival). A sequence is
admitted when the blocks of all its tokens are free and one more for each sequence that runs already, so that what runs
can grow before anything is preempted. When blocks run out all the same, the last in order gives its blocks back and is
recomputed later.
"""

from bisect import insort
from collections.abc import Iterator
from operator import attrgetter

from moorage_runtime.engine.blocks import BlockManager
from moorage_runtime.engine.plan import Chunk, Limits, StepPlan
from moorage_runtime.engine.sequence import Sequence

_order = attrgetter("order")


class Scheduler:
    """Two queues, both kept in order. It reads no clock and draws no random number: same calls, same plans."""

    def __init__(self, blocks: BlockManager, limits: Limits) -> None:
        self._blocks = blocks
        self._max_running = limits.max_running
        # Every running sequence can decode in every step, whatever the budget for prompts.
        self._budget = max(limits.token_budget, limits.max_running)
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait for its turn."""
        insort(self.waiting, sequence, key=_order)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence that has ended, wherever it is, and free its blocks."""
        (self.running if sequence in self.running else self.waiting).remove(sequence)
        self._blocks.release(sequence.blocks)

    def schedule(self) -> StepPlan:
        """Decide one step: blocks are taken, `computed` is left for the engine to advance."""
        preempted = self._make_room()
        self._admit()
        return StepPlan(tuple(self._chunks()), tuple(preempted))

    def _make_room(self) -> list[Sequence]:
        """Give each running sequence the block for its next token, at the cost of those behind it."""
        preempted = []
        served = 0
        while served < len(self.running):
            sequence = self.running[served]
            if self._blocks.can_grow(sequence.blocks, sequence.length):
                self._blocks.grow(sequence.blocks, sequence.length)
                served += 1
            else:
                preempted.append(self._preempt_last())
        return preempted

    def _preempt_last(self) -> Sequence:
        sequence = self.running.pop()
        self._blocks.release(sequence.blocks)
        sequence.computed = 0
        self.add(sequence)
        return sequence

    def _admit(self) -> None:
        """Move sequences from waiting to running, strictly in order, while places, blocks and budget last."""
        budget = self._budget - sum(sequence.pending for sequence in self.running)
        while self.waiting and len(self.running) < self._max_running and budget > 0:
            sequence = self.waiting[0]
            if not self._blocks.can_grow(sequence.blocks, sequence.length, margin=len(self.running)):
                return
            self._blocks.grow(sequence.blocks, sequence.length)
            insort(self.running, self.waiting.pop(0), key=_order)
            budget -= sequence.pending

    def _chunks(self) -> Iterator[Chunk]:
        budget = self._budget
        for sequence in sorted(
            self.running, key=lambda sequence: sequence.pending > 1
        ):  # stable: decodes, then prompts
            count = min(sequence.pending, budget)
            if count == 0:
                return
            budget -= count
            yield Chunk(sequence, sequence.computed, count, samples=count == sequence.pending)
