"""What one step computes, and who computes it: the values between the scheduler and the runner."""

from dataclasses import dataclass
from typing import Protocol

from moorage_runtime.engine.messages import TokenLogprobs
from moorage_runtime.engine.sequence import Sequence

MOST_RUNNING = 1024
"""What `Limits.max_running` may be: the largest step is measured with as many."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an engine may take. Measured when the model is loaded; constant afterwards."""

    context_length: int
    """Tokens of prompt and output of one request."""
    vocab_size: int
    total_blocks: int
    """At least those of one request of `context_length`, so that every request can run alone."""
    max_running: int
    token_budget: int
    """Tokens computed in one step: bounds how long a prompt keeps the streams of others waiting."""
    policy: str = "FCFS"
    """Who runs when not all can: a name of `moorage_runtime.engine.policy`."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Compute `tokens[start:start + count]` of a sequence; its blocks hold all of these positions.

    Keys and values of the positions before `start` are there already, some of them in blocks that several sequences of
    the step share. Those are read only: no chunk covers a position of a shared block.
    """

    sequence: Sequence
    start: int
    count: int
    samples: bool
    """The chunk ends at the last known token, so its last row brings the next one."""

    @property
    def tokens(self) -> list[int]:
        """Those that are computed."""
        return self.sequence.tokens[self.start : self.start + self.count]


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step: decodes first, then chunks of prompts."""

    chunks: tuple[Chunk, ...]
    preempted: tuple[Sequence, ...]
    """Gave their place, and where memory is short their blocks, to sequences ahead of them in order."""
    admitted: tuple[Sequence, ...] = ()
    """Run for the first time."""

    @property
    def cached_prompt_tokens(self) -> int:
        """Prompt tokens of the sequences that run for the first time which need not be computed."""
        return sum(sequence.cached_prompt_tokens or 0 for sequence in self.admitted)


@dataclass(frozen=True, slots=True)
class Sampled:
    """The next token of one sequence; None when the model computed no number (overflow, broken weights)."""

    token_id: int | None
    logprobs: TokenLogprobs | None = None


class Runner(Protocol):
    """The model, as the engine knows it."""

    def execute(self, plan: StepPlan) -> list[Sampled]:
        """Compute every chunk, write its keys and values to the sequence's blocks; one result per sampling chunk.

        The block table of a sequence may differ from that of the last step in any place: equal blocks are merged.
        """
        ...
