"""Any order of arrivals, cancellations and steps: each request ends once, with its own tokens, and no block is lost.

The same promises as in the soak test of the engine, but for rules that Hypothesis picks and shrinks.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from moorage_runtime.engine import policy
from moorage_runtime.engine.core import Engine
from moorage_runtime.engine.messages import Submit
from moorage_runtime.engine.plan import Limits
from tests.simulated_runner import SimulatedRunner, next_token

VOCABULARY = 11
CONTEXT = 96
BUDGET = 24


def _stem(length):
    """A prompt that begins as all others of this kind."""
    return (list(range(VOCABULARY)) * CONTEXT)[:length]


class EngineMachine(RuleBasedStateMachine):
    """The simulated runner fails the step in which a sequence would read anything but its own past."""

    def __init__(self):
        super().__init__()
        self.open: dict[str, Submit] = {}
        self.tokens: dict[str, list[int]] = {}
        self.deadlines: dict[str, float] = {}
        self.count = 0
        self.now = 0.0

    @initialize(name=st.sampled_from(policy.NAMES), max_running=st.integers(1, 5))
    def start(self, name, max_running):
        self.max_running = max_running
        self.runner = SimulatedRunner(VOCABULARY)
        # Room for one whole context and little more, so that preemption is the rule.
        self.engine = Engine(self.runner, Limits(CONTEXT, VOCABULARY, 8, max_running, BUDGET, name))

    @rule(
        prompt=st.lists(st.integers(0, VOCABULARY - 1), max_size=CONTEXT) | st.integers(0, CONTEXT).map(_stem),
        max_tokens=st.integers(1, CONTEXT),
        stop=st.lists(st.integers(0, VOCABULARY - 1), max_size=1),
        priority=st.integers(0, 2),
        salt=st.sampled_from(("", "tenant")),
        timeout=st.none() | st.integers(1, 50),
        copies=st.integers(1, 3),
    )
    def submit(self, prompt, *, max_tokens, stop, priority, salt, timeout, copies):
        for _ in range(copies):
            self.count += 1
            request = Submit(
                f"r{self.count}",
                prompt,
                max_tokens,
                stop_token_ids=stop,
                priority=priority,
                cache_salt=salt,
                timeout_seconds=timeout,
            )
            self.engine.submit(request, self.now)
            self.open[request.id] = request
            self.tokens[request.id] = []
            if timeout is not None:
                self.deadlines[request.id] = self.now + timeout

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def cancel(self, data):
        self.engine.cancel(data.draw(st.sampled_from(sorted(self.open))))

    @rule(steps=st.integers(1, 20))
    def step(self, steps):
        for _ in range(steps):
            self._step()

    def _step(self):
        self.now += 1
        report = self.engine.step(self.now)
        assert sum(count for _, count in self.runner.computed) <= BUDGET
        for output in report.outputs:
            request = self.open[output.id]  # an output after the end is a KeyError
            self.tokens[output.id] += output.token_ids
            if output.finish_reason:
                self._judge(request, output.finish_reason)
                del self.open[output.id]
                self.deadlines.pop(output.id, None)
        assert all(deadline > self.now for deadline in self.deadlines.values())

    def _judge(self, request, reason):
        tokens = list(request.prompt)
        for token in self.tokens[request.id]:
            assert token == next_token(tokens, VOCABULARY)
            tokens.append(token)
        fits = 0 < len(request.prompt) < CONTEXT
        assert (reason == "error") == (not fits and reason not in ("abort", "timeout"))
        if reason == "timeout":
            assert self.deadlines[request.id] <= self.now
        if reason == "length":
            assert len(tokens) == min(len(request.prompt) + request.max_tokens, CONTEXT)
        if reason == "stop":
            assert tokens[-1] in request.stop_token_ids

    @invariant()
    def blocks_are_conserved(self):
        self.engine.check()

    @invariant()
    def work_is_known(self):
        assert self.engine.has_work == bool(self.open)
        assert self.engine.running <= self.max_running

    def teardown(self):
        for _ in range(10_000):
            if not self.engine.has_work:
                break
            self._step()
        assert not self.open
        assert self.engine.kv_utilization == 0


TestEngineMachine = EngineMachine.TestCase
TestEngineMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
