"""One request as the engine sees it: its tokens, how many of them are computed, and the blocks that hold them."""

from dataclasses import dataclass, field

from moorage_runtime.engine.messages import FinishReason, SamplingParams, Submit


@dataclass(slots=True, eq=False)
class Sequence:
    """A request between its arrival and its end.

    `tokens` is the prompt followed by the output. The keys and values of the first `computed` tokens lie in `blocks`;
    the others are still to be computed. Prefill, a chunk of it, decoding and recomputing after preemption are thus one
    thing: tokens that wait. A decoding sequence has exactly one.
    """

    id: str
    tokens: list[int]
    prompt_length: int
    max_length: int
    """Length of `tokens` at which the request ends with `length`."""
    sampling: SamplingParams
    stop_token_ids: frozenset[int]
    order: tuple[int, int]
    """(priority, arrival): smaller ones start earlier and are preempted later."""
    computed: int = 0
    blocks: list[int] = field(default_factory=list)

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
            order=(request.priority, arrival),
        )

    @property
    def length(self) -> int:
        """Tokens of prompt and output so far."""
        return len(self.tokens)

    @property
    def pending(self) -> int:
        """Tokens that are not computed yet."""
        return len(self.tokens) - self.computed

    def finish_reason(self) -> FinishReason | None:
        """Why the token generated last is the last one; None when it is not."""
        if self.tokens[-1] in self.stop_token_ids:
            return "stop"
        return "length" if len(self.tokens) >= self.max_length else None
