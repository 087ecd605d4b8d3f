"""The load: short jobs and long ones, arriving at random, the same for every policy."""

import random
from dataclasses import dataclass

from bench.scheduling.cost import StepCost

SHORT_SHARE = 0.8
"""Chats are many short turns and some long ones; what matters for the policies is that both are there."""
_SHORT_PROMPT, _SHORT_OUT = (16, 64), (16, 64)
_LONG_PROMPT, _LONG_OUT = (64, 512), (256, 512)
CONTEXT = _LONG_PROMPT[1] + _LONG_OUT[1]
VOCABULARY = 10_000
"""Token ids are below."""


@dataclass(frozen=True, slots=True)
class Job:
    """A request that asks for exactly `out` tokens."""

    name: str
    arrival: float
    """Seconds after the start."""
    prompt: list[int]
    out: int
    is_long: bool


def draw(count: int, rate: float, seed: int) -> list[Job]:
    """Jobs that arrive independently of one another, `rate` a second on average."""
    dice = random.Random(seed)
    jobs, now = [], 0.0
    for index in range(count):
        now += dice.expovariate(rate)
        is_long = dice.random() >= SHORT_SHARE
        prompt, out = (_LONG_PROMPT, _LONG_OUT) if is_long else (_SHORT_PROMPT, _SHORT_OUT)
        tokens = [dice.randrange(VOCABULARY) for _ in range(dice.randint(*prompt))]
        jobs.append(Job(f"{index}", now, tokens, dice.randint(*out), is_long))
    return jobs


def capacity(cost: StepCost, max_running: int) -> float:
    """Jobs a second that an engine computes when all its places are taken."""
    shares = ((SHORT_SHARE, _SHORT_PROMPT, _SHORT_OUT), (1 - SHORT_SHARE, _LONG_PROMPT, _LONG_OUT))
    prompt = sum(share * _mean(lengths) for share, lengths, _ in shares)
    out = sum(share * _mean(lengths) for share, _, lengths in shares)
    decode = cost.seconds(max_running, 0) / max_running
    return 1 / (out * decode + prompt * cost.prompt_token)


def _mean(ends: tuple[int, int]) -> float:
    return sum(ends) / 2
