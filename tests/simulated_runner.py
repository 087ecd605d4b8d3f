"""A runner without a model: it checks what a real one would compute wrongly in silence.

Where a model would keep the keys and values of a position it keeps a digest of the token, of everything before it and
of the namespace, because that is what keys and values depend on. Before it answers it reads the whole past of each
sequence back through its block table, so a block that was handed out twice, freed too early, never computed or shared
with the wrong sequence is found in the step in which it would spoil an answer.
"""

from moorage_runtime.engine.blocks import BLOCK_TOKENS
from moorage_runtime.engine.plan import Chunk, Sampled, StepPlan
from moorage_runtime.engine.sequence import Sequence


class CorruptCacheError(Exception):
    """A sequence would have attended to something other than its own past, or written to what others read."""


def next_token(tokens: list[int], vocab_size: int) -> int:
    """The token that the simulated model generates: a function of everything before it, as in a real one."""
    return hash(tuple(tokens)) % vocab_size


class SimulatedRunner:
    """Generates `next_token` for every request, whatever its sampling parameters."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._blocks: dict[int, list[int]] = {}
        """Digest of each position of each block."""
        self._pasts: dict[str, list[int]] = {}
        """Digest of each token of the sequences of the last step, computed without any block."""
        self.computed: list[tuple[str, int]] = []
        """(request id, tokens) of each chunk of the last step."""

    def execute(self, plan: StepPlan) -> list[Sampled]:
        """Write the chunks, then read every past back.

        Raises:
            CorruptCacheError: a past is not the sequence's own, or a shared block was to be written.
        """
        self.computed = [(chunk.sequence.id, chunk.count) for chunk in plan.chunks]
        self._pasts = {chunk.sequence.id: self._past(chunk.sequence) for chunk in plan.chunks}
        for chunk in plan.chunks:
            self._write(chunk)
        for chunk in plan.chunks:
            self._read(chunk)
        return [Sampled(next_token(chunk.sequence.tokens, self._vocab_size)) for chunk in plan.chunks if chunk.samples]

    def _past(self, sequence: Sequence) -> list[int]:
        past = self._pasts.get(sequence.id, [])
        digest = past[-1] if past else hash(sequence.namespace)
        for token in sequence.tokens[len(past) :]:
            digest = hash((digest, token))
            past.append(digest)
        return past

    def _write(self, chunk: Chunk) -> None:
        sequence, past = chunk.sequence, self._pasts[chunk.sequence.id]
        if chunk.start < sequence.published * BLOCK_TOKENS:
            raise CorruptCacheError(f"request {sequence.id!r} writes position {chunk.start} of a block that is shared")
        for position in range(chunk.start, chunk.start + chunk.count):
            block = sequence.blocks[position // BLOCK_TOKENS]
            self._blocks.setdefault(block, [0] * BLOCK_TOKENS)[position % BLOCK_TOKENS] = past[position]

    def _read(self, chunk: Chunk) -> None:
        end = chunk.start + chunk.count
        read: list[int] = []
        for block in chunk.sequence.blocks:
            read += self._blocks.get(block, [])
        if read[:end] != self._pasts[chunk.sequence.id][:end]:
            raise CorruptCacheError(f"request {chunk.sequence.id!r} reads something other than its {end} tokens")
