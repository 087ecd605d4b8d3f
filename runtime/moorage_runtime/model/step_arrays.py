"""A step as arrays of numbers: what the kernels are called with, and what ranks of a group tell each other."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, fields

from moorage_runtime.engine.blocks import blocks_for
from moorage_runtime.engine.messages import SamplingParams
from moorage_runtime.engine.plan import Chunk
from moorage_runtime.engine.sequence import Sequence
from moorage_runtime.kernels.library import StepInput

_TYPES = {"drawn": "B"}
_NUMBER = "i"


@dataclass(frozen=True, slots=True)
class ToldChunk(Chunk):
    """A chunk of a sequence whose past only the rank that plans knows: `sequence` has no tokens at all."""

    told: list[int]

    @property
    def tokens(self) -> list[int]:
        """See `Chunk`."""
        return self.told


@dataclass(frozen=True, slots=True)
class StepArrays:
    """See `moorage::StepInput` in `kernels/src/session.h`."""

    tokens: "array[int]"
    starts: "array[int]"
    counts: "array[int]"
    offsets: "array[int]"
    tables: "array[int]"
    samples: "array[int]"
    """Rows whose next token is wanted."""
    drawn: "array[int]"
    """For each of them 1 where the logits themselves are wanted."""

    @classmethod
    def of(cls, chunks: Iterable[Chunk], drawn: Iterable[bool]) -> "StepArrays":
        """The chunks, one after the other; `drawn` for those that sample."""
        tokens, starts, counts, offsets, tables, samples = (array(_NUMBER) for _ in range(6))
        for chunk in chunks:
            end = chunk.start + chunk.count
            starts.append(chunk.start)
            counts.append(chunk.count)
            tokens.extend(chunk.sequence.tokens[chunk.start : end])
            offsets.append(len(tables))
            tables.extend(chunk.sequence.blocks[: blocks_for(end)])
            if chunk.samples:
                samples.append(len(tokens) - 1)
        return cls(tokens, starts, counts, offsets, tables, samples, array("B", drawn))

    @classmethod
    def from_bytes(cls, **parts: bytes) -> "StepArrays":
        """What `to_bytes` gave.

        Raises:
            ValueError: an array is no whole number of numbers, or they do not fit each other.
        """
        arrays = {name: array(_TYPES.get(name, _NUMBER)) for name in (field.name for field in fields(cls))}
        for name, numbers in arrays.items():
            numbers.frombytes(parts[name])
        made = cls(**arrays)
        if not made._fits():
            raise ValueError("the arrays of a step do not fit each other")
        return made

    def to_bytes(self) -> dict[str, bytes]:
        """Each array in this machine's order of bytes."""
        return {field.name: getattr(self, field.name).tobytes() for field in fields(self)}

    def chunks(self) -> tuple[ToldChunk, ...]:
        """The chunks again."""
        samples, row, made = set(self.samples), 0, []
        for index, (start, count, offset) in enumerate(zip(self.starts, self.counts, self.offsets, strict=True)):
            sequence = Sequence(
                id=str(index),
                tokens=[],
                prompt_length=0,
                max_length=0,
                sampling=SamplingParams(),
                stop_token_ids=frozenset(),
                order=(0, 0),
                blocks=self.tables[offset : offset + blocks_for(start + count)].tolist(),
            )
            told = self.tokens[row : row + count].tolist()
            row += count
            made.append(ToldChunk(sequence, start, count, samples=row - 1 in samples, told=told))
        return tuple(made)

    def input(self, best: "array[int]") -> StepInput:
        """For the kernels, which write to `best`; valid as long as both are."""
        arrays = (self.tokens, self.starts, self.counts, self.offsets, self.tables, self.samples, self.drawn, best)
        return StepInput(
            len(self.starts), len(self.tokens), len(self.samples), *(each.buffer_info()[0] for each in arrays)
        )

    def _fits(self) -> bool:
        """Whether every chunk has its tokens and its part of the tables: the kernels look at no lengths of arrays."""
        if not len(self.starts) == len(self.counts) == len(self.offsets) or len(self.samples) != len(self.drawn):
            return False
        ends = (start + count for start, count in zip(self.starts, self.counts, strict=True))
        return all(
            start >= 0 and count > 0 and offset >= 0 and offset + blocks_for(end) <= len(self.tables)
            for start, count, offset, end in zip(self.starts, self.counts, self.offsets, ends, strict=True)
        )
