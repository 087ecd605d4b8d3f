"""The engine: requests in, tokens out, one step after another.

Each request ends exactly once, with one output that carries its finish reason. The engine does no I/O and reads no
clock, so a test can drive it through a million steps; the process around it (`moorage_runtime.model.process`) has both.
`now` is in seconds, on any clock that never goes back.
"""

from dataclasses import dataclass

from msgspec.structs import replace

from moorage_runtime.engine.admission import problem
from moorage_runtime.engine.blocks import BLOCK_TOKENS, BlockManager, IntegrityError
from moorage_runtime.engine.messages import FinishReason, Output, Submit
from moorage_runtime.engine.plan import Chunk, Limits, Runner, Sampled, StepPlan
from moorage_runtime.engine.scheduler import Scheduler
from moorage_runtime.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class StepReport:
    """What a step brought."""

    outputs: list[Output]
    prompt_tokens: int
    """Prompt tokens computed, without those that are computed again after a preemption."""
    generated_tokens: int
    preemptions: int
    """Requests that were paused, or lost their blocks and will be recomputed."""
    cached_prompt_tokens: int
    """Prompt tokens of the requests that ran for the first time which were found in the prefix cache."""


class Engine:
    """A batch of requests over one model."""

    def __init__(self, runner: Runner, limits: Limits) -> None:
        self._runner = runner
        self._limits = limits
        self._blocks = BlockManager(limits.total_blocks)
        self._scheduler = Scheduler(self._blocks, limits)
        self._sequences: dict[str, Sequence] = {}
        self._ended: list[Output] = []
        """Requests that ended between two steps; the next step reports them."""
        self._arrivals = 0
        self._deadlines: dict[str, float] = {}
        """Of the requests that have one."""

    @property
    def has_work(self) -> bool:
        """Whether a step would compute or report anything."""
        return bool(self._sequences or self._ended)

    @property
    def running(self) -> int:
        """Requests that are computed."""
        return len(self._scheduler.running)

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        return len(self._scheduler.waiting)

    @property
    def kv_utilization(self) -> float:
        """Share of the KV blocks that requests hold; what is only cached counts as free."""
        return self._blocks.used / self._blocks.total

    def submit(self, request: Submit, now: float = 0.0) -> None:
        """Take a request that arrives now; one that can never be computed ends with `error` in the next step.

        Raises:
            ValueError: the id is that of a request that has not ended.
        """
        if request.id in self._sequences:
            raise ValueError(f"request {request.id!r} was submitted twice")
        if reason := problem(request, self._limits):
            self._ended.append(Output(request.id, [], finish_reason="error", error=reason))
            return
        self._arrivals += 1
        sequence = Sequence.of(request, self._arrivals, self._limits.context_length)
        sequence.arrived_at = now
        self._sequences[sequence.id] = sequence
        self._scheduler.add(sequence)
        if request.timeout_seconds is not None:
            self._deadlines[sequence.id] = now + request.timeout_seconds

    def cancel(self, request_id: str) -> None:
        """End a request with `abort` and release its blocks at once; unknown and ended ones are left alone."""
        self._end_early(request_id, "abort")

    def cancel_all(self) -> None:
        """End every request with `abort`."""
        for request_id in list(self._sequences):
            self.cancel(request_id)

    def step(self, now: float = 0.0) -> StepReport:
        """End what is out of time, then: schedule, execute, update, emit, free."""
        self._expire(now)
        plan = self._scheduler.schedule()
        for sequence in plan.admitted:
            sequence.queue_seconds = now - sequence.arrived_at
        sampled = self._runner.execute(plan) if plan.chunks else []
        prompt_tokens = self._update(plan, sampled)
        outputs = self._emit(plan, sampled)
        self._free(outputs)
        generated = sum(len(output.token_ids) for output in outputs)
        return StepReport(outputs, prompt_tokens, generated, len(plan.preempted), plan.cached_prompt_tokens)

    def check(self) -> None:
        """Compare blocks, queues and requests with one another; meant for an idle moment.

        Raises:
            IntegrityError: they do not add up.
        """
        self._scheduler.check()
        if {*self._scheduler.running, *self._scheduler.waiting} != {*self._sequences.values()}:
            raise IntegrityError("a request is in no queue, or a queue holds one that has ended")
        self._blocks.check(sequence.blocks for sequence in self._sequences.values())

    def _expire(self, now: float) -> None:
        for request_id in [name for name, deadline in self._deadlines.items() if deadline <= now]:
            self._end_early(request_id, "timeout")

    def _update(self, plan: StepPlan, sampled: list[Sampled]) -> int:
        """Advance the sequences by what was computed; the number of prompt tokens in it, each once per request."""
        prompt_tokens = 0
        results = iter(sampled)
        for chunk in plan.chunks:
            sequence = chunk.sequence
            sequence.computed += chunk.count
            prompt_tokens += sequence.newly_told()
            if chunk.samples:
                token = next(results).token_id
                if token is None:
                    continue  # what is broken is not to be found by others
                sequence.tokens.append(token)
            if sequence.computed // BLOCK_TOKENS > sequence.published:
                self._publish(sequence)
        return prompt_tokens

    def _publish(self, sequence: Sequence) -> None:
        full = sequence.computed // BLOCK_TOKENS
        self._blocks.publish(sequence.blocks, sequence.namespace, sequence.tokens, range(sequence.published, full))
        sequence.published = full

    def _emit(self, plan: StepPlan, sampled: list[Sampled]) -> list[Output]:
        outputs, self._ended = self._ended, []
        outputs += [_output(chunk.sequence, result) for chunk, result in zip(_sampling(plan), sampled, strict=True)]
        return outputs

    def _free(self, outputs: list[Output]) -> None:
        for output in outputs:
            if output.finish_reason and (sequence := self._sequences.get(output.id)):
                self._end(sequence)

    def _end_early(self, request_id: str, reason: FinishReason) -> None:
        if sequence := self._sequences.get(request_id):
            self._end(sequence)
            self._ended.append(Output(request_id, [], finish_reason=reason))

    def _end(self, sequence: Sequence) -> None:
        del self._sequences[sequence.id]
        self._deadlines.pop(sequence.id, None)
        self._scheduler.remove(sequence)


def _sampling(plan: StepPlan) -> list[Chunk]:
    return [chunk for chunk in plan.chunks if chunk.samples]


def _output(sequence: Sequence, result: Sampled) -> Output:
    if result.token_id is None:
        return Output(
            sequence.id, [], finish_reason="error", error="the model computed no finite number for this request"
        )
    reason: FinishReason | None = sequence.finish_reason()
    logprobs = None if result.logprobs is None else [result.logprobs]
    output = Output(sequence.id, [result.token_id], logprobs, reason)
    if sequence.length > sequence.prompt_length + 1:
        return output
    cached = sequence.cached_prompt_tokens or 0
    return replace(output, cached_prompt_tokens=cached, queue_seconds=sequence.queue_seconds)
