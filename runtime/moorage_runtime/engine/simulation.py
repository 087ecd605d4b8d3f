"""A runner without a model, for tests: it checks what a real one would compute wrongly in silence.

It keeps the token of every position in the slot where a model would keep its keys and values. Before it computes a
chunk it reads the whole past of the sequence back through its block table, so a block that was handed out twice, freed
too early or never computed is found in the step in which it would spoil an answer.
"""

from moorage_runtime.engine.blocks import BLOCK_TOKENS
from moorage_runtime.engine.plan import Chunk, Sampled, StepPlan
from moorage_runtime.engine.sequence import Sequence


class CorruptCacheError(Exception):
    """A sequence would have attended to something other than its own past."""


def next_token(tokens: list[int], vocab_size: int) -> int:
    """The token that the simulated model generates: a function of everything before it, as in a real one."""
    return hash(tuple(tokens)) % vocab_size


class SimulatedRunner:
    """Generates `next_token` for every request, whatever its sampling parameters."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._slots: dict[int, int] = {}
        self.steps: list[list[tuple[str, int]]] = []
        """What was computed: (request id, tokens) of each chunk of each step."""

    def execute(self, plan: StepPlan) -> list[Sampled]:
        """Write the chunks, then read every past back.

        Raises:
            CorruptCacheError: a past is not the sequence's own.
        """
        self.steps.append([(chunk.sequence.id, chunk.count) for chunk in plan.chunks])
        for chunk in plan.chunks:
            for position in range(chunk.start, chunk.start + chunk.count):
                self._slots[_slot(chunk.sequence, position)] = chunk.sequence.tokens[position]
        for chunk in plan.chunks:
            self._check(chunk)
        return [Sampled(next_token(chunk.sequence.tokens, self._vocab_size)) for chunk in plan.chunks if chunk.samples]

    def _check(self, chunk: Chunk) -> None:
        end = chunk.start + chunk.count
        past = [self._slots.get(_slot(chunk.sequence, position)) for position in range(end)]
        if past != chunk.sequence.tokens[:end]:
            raise CorruptCacheError(f"request {chunk.sequence.id!r} reads {past}, not {chunk.sequence.tokens[:end]}")


def _slot(sequence: Sequence, position: int) -> int:
    return sequence.blocks[position // BLOCK_TOKENS] * BLOCK_TOKENS + position % BLOCK_TOKENS
