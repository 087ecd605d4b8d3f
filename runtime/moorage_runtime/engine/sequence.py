"""One request as the engine sees it: its tokens, how many of them are computed, and the blocks that hold them."""

from dataclasses import dataclass, field

from moorage_runtime.engine.messages import FinishReason, SamplingParams, Submit
from moorage_runtime.engine.prefix_cache import Namespace


@dataclass(slots=True, eq=False)
class Sequence:
    """A request between its arrival and its end.

    `tokens` is the prompt followed by the output. The keys and values of the first `computed` tokens lie in `blocks`;
    the others are still to be computed. Prefill, a chunk of it, decoding and recomputing after preemption are thus one
    thing: tokens that wait. A decoding sequence has exactly one.

    It waits without blocks (new, or preempted when memory was short), waits with blocks (paused) or runs.
    """

    id: str
    tokens: list[int]
    prompt_length: int
    max_length: int
    """Length of `tokens` at which the request ends with `length`."""
    sampling: SamplingParams
    stop_token_ids: frozenset[int]
    order: tuple[int, int]
    """(rank, arrival): smaller ones run first. The policy decides the rank."""
    priority: int = 0
    computed: int = 0
    blocks: list[int] = field(default_factory=list)
    """Those that are full and computed may stand in other sequences' lists too: they are read, never written. Which
    block holds a position may change from one step to the next."""
    published: int = 0
    """How many of the first blocks are known to the prefix cache."""
    namespace: Namespace = ("",)
    """Prefixes are shared only with sequences of the same."""
    cached_prompt_tokens: int | None = None
    """How much of the prompt was found in the cache when it first ran; None before."""
    told: int = 0
    """Prompt tokens that were reported as computed or cached."""
    arrived_at: float = 0.0
    """Seconds on the engine's clock."""
    queue_seconds: float = 0.0
    """From then until it first ran."""
    running: bool = False
    waiting_since: int = 0
    """The step in which it last became waiting."""
    quantum_end: int = 0
    """Position at which its turn is over, where a policy gives turns."""

    @classmethod
    def of(cls, request: Submit, arrival: int, context_length: int) -> "Sequence":
        """The sequence of a request that arrived as the `arrival`-th, shortened to what the context leaves."""
        return cls(
            id=request.id,
            tokens=list(request.prompt),
            prompt_length=len(request.prompt),
            max_length=min(len(request.prompt) + request.max_tokens, context_length),
            sampling=request.sampling,
            stop_token_ids=frozenset(request.stop_token_ids),
            order=(0, arrival),
            priority=request.priority,
            namespace=(request.cache_salt,),
        )

    @property
    def rank(self) -> int:
        """The first of `order`."""
        return self.order[0]

    @property
    def arrival(self) -> int:
        """The second of `order`."""
        return self.order[1]

    @property
    def length(self) -> int:
        """Tokens of prompt and output so far."""
        return len(self.tokens)

    @property
    def pending(self) -> int:
        """Tokens that are not computed yet."""
        return len(self.tokens) - self.computed

    def newly_told(self) -> int:
        """Prompt tokens that are computed and were not reported before; they count as reported from here on."""
        new = max(0, min(self.computed, self.prompt_length) - self.told)
        self.told += new
        return new

    def finish_reason(self) -> FinishReason | None:
        """Why the token generated last is the last one; None when it is not."""
        if self.tokens[-1] in self.stop_token_ids:
            return "stop"
        return "length" if len(self.tokens) >= self.max_length else None
