"""Random requests over engines that are too small for them, step after step, under every policy.

What must hold in every step is in `World`; the simulated runner besides fails the step in which a sequence would read
anything but its own past. `make engine-soak` runs a million steps (MOORAGE_SOAK_STEPS); here it is a slice of them.
"""

import os
import random
import sys
import time
from collections import Counter

from moorage_runtime.engine import policy
from moorage_runtime.engine.core import Engine
from moorage_runtime.engine.messages import Submit
from moorage_runtime.engine.plan import Limits
from tests.simulated_runner import SimulatedRunner, next_token

STEPS = int(os.environ.get("MOORAGE_SOAK_STEPS", "30000"))
SEED = int(os.environ.get("MOORAGE_SOAK_SEED", "1"))
VOCABULARY = 13
CONTEXT = 96
OPEN = 24
"""Requests that are open at once."""
PATIENCE = policy.PROMOTION_STEPS + OPEN * CONTEXT
"""Steps within which everyone gets a turn where nobody starves: until promoted, then behind all others' last turns."""


class World:
    """One engine with random limits, its requests, and what is known of them from outside."""

    def __init__(self, dice: random.Random, seen: Counter):
        self.dice, self.seen = dice, seen
        self.policy = dice.choice(policy.NAMES)
        blocks = dice.choice((6, 7, 9, 12, 20, 40))
        self.max_running = dice.choice((1, 2, 3, 5, 8))
        self.budget = dice.choice((8, 24, 64))
        self.runner = SimulatedRunner(VOCABULARY)
        limits = Limits(CONTEXT, VOCABULARY, blocks, self.max_running, self.budget, self.policy)
        self.engine = Engine(self.runner, limits)
        self.load = dice.choice((0.02, 0.1, 0.4))
        self.stems = [self._tokens(dice.choice((16, 33, 64))) for _ in range(3)]
        self.now = 0.0
        self.step_number = 0
        self.count = 0
        self.open: dict[str, Submit] = {}
        self.tokens: dict[str, list[int]] = {}
        self.deadlines: dict[str, float] = {}
        self.turns: dict[str, int] = {}
        self.cancelled: set[str] = set()
        self.asked = self.told = self.begun = 0
        """Prompt tokens: of all requests, reported so far, and of the requests that have a first token."""

    def _tokens(self, count):
        return self.dice.choices(range(VOCABULARY), k=count)

    def act(self):
        """Whatever clients may do between two steps."""
        if self.dice.random() < self.load:
            self._submit(copies=1 if self.dice.random() < 0.8 else self.dice.randint(2, 4))
        if self.open and self.dice.random() < 0.02:
            name = self.dice.choice(sorted(self.open))
            self.engine.cancel(name)
            self.cancelled.add(name)
        self.now += self.dice.random()

    def _submit(self, copies):
        stem = self.dice.choice(self.stems)
        prompt = stem[: self.dice.randint(0, len(stem))] + self._tokens(self.dice.randint(0, 30))
        salt = self.dice.choice(("", "", "tenant"))
        priority = self.dice.randint(0, 2)
        timeout = self.dice.uniform(1, 60) if self.dice.random() < 0.15 else None
        stops = [self.dice.randrange(VOCABULARY)] if self.dice.random() < 0.3 else []
        for _ in range(min(copies, OPEN - len(self.open))):
            self.count += 1
            request = Submit(
                f"r{self.count}",
                prompt,
                self.dice.randint(1, 40),
                stop_token_ids=stops,
                priority=priority,
                cache_salt=salt,
                timeout_seconds=timeout,
            )
            self.engine.submit(request, self.now)
            self.open[request.id] = request
            self.asked += len(prompt)
            self.tokens[request.id] = list(prompt)
            self.turns[request.id] = self.step_number
            if timeout is not None:
                self.deadlines[request.id] = self.now + timeout

    def step(self):
        """One step of the engine; what it reports is compared with what is known."""
        self.step_number += 1
        report = self.engine.step(self.now)
        self.seen["preemptions"] += report.preemptions
        self.seen["cached"] += report.cached_prompt_tokens
        self.told += report.prompt_tokens + report.cached_prompt_tokens
        for name in self.open.keys() & dict(self.runner.computed).keys():
            self.turns[name] = self.step_number
        assert sum(count for _, count in self.runner.computed) <= max(self.budget, self.max_running)
        for output in report.outputs:
            self._output(output)
        self._invariants()

    def _output(self, output):
        request = self.open[output.id]  # an output after the last one is a KeyError
        tokens = self.tokens[output.id]
        assert output.cached_prompt_tokens % 16 == 0
        assert output.cached_prompt_tokens < max(1, len(request.prompt))
        if output.token_ids and len(tokens) == len(request.prompt):
            self.begun += len(tokens)
        for token in output.token_ids:
            assert token == next_token(tokens, VOCABULARY)
            tokens.append(token)
        if output.finish_reason:
            self.seen[output.finish_reason] += 1
            self._ended(request, tokens, output.finish_reason)

    def _ended(self, request, tokens, reason):
        name = request.id
        holds = {
            "stop": lambda: tokens[-1] in request.stop_token_ids,
            "length": lambda: len(tokens) == min(len(request.prompt) + request.max_tokens, CONTEXT),
            "abort": lambda: name in self.cancelled,
            "timeout": lambda: self.deadlines[name] <= self.now,
            "error": lambda: not 0 < len(request.prompt) < CONTEXT,
        }
        assert holds[reason]()
        for known in (self.open, self.tokens, self.turns, self.deadlines):
            known.pop(name, None)

    def _invariants(self):
        self.engine.check()
        assert self.begun <= self.told <= self.asked  # each token of a prompt is told once, whatever is computed again
        assert self.engine.has_work == bool(self.open)
        assert self.engine.running <= self.max_running
        assert self.engine.running + self.engine.waiting == len(self.open)
        assert not self.cancelled & self.open.keys()  # cancelled: ended in the next step
        assert all(deadline > self.now for deadline in self.deadlines.values())  # out of time: the same
        if self.policy != "Priority":  # which starves by its nature
            assert self.step_number - min(self.turns.values(), default=self.step_number) <= PATIENCE

    def drain(self):
        """No more requests: all that are open end, and no block stays held."""
        while self.open:
            self.step()
        assert not self.engine.has_work
        assert self.engine.kv_utilization == 0


def soak(steps, seed, say):
    """Run worlds one after another until so many steps are done; what was seen."""
    seen, done = Counter(), 0
    began = told = time.monotonic()
    while done < steps:
        world = World(random.Random(f"{seed} {seen['worlds']}"), seen)
        for _ in range(world.dice.randint(200, 3000)):
            world.act()
            world.step()
        world.drain()
        seen["worlds"] += 1
        seen[world.policy] += 1
        done += world.step_number
        if time.monotonic() - told > 5:
            told = time.monotonic()
            ended = sum(seen[reason] for reason in REASONS)
            say(f"  {done:>9,} of {steps:,} steps, {ended:,} requests ended, {told - began:.0f} s")
    say(f"  {done:,} steps in {time.monotonic() - began:.0f} s: {dict(seen)}")
    return seen


REASONS = ("stop", "length", "abort", "timeout", "error")


def test_random_steps_keep_every_promise(capsys):
    def say(text):
        if "MOORAGE_SOAK_STEPS" in os.environ:
            with capsys.disabled():
                sys.stderr.write(f"{text}\n")

    seen = soak(STEPS, SEED, say)
    for what in (*REASONS, *policy.NAMES, "preemptions", "cached"):
        assert seen[what] > 0  # else the figures above are chosen so that nothing is tested
