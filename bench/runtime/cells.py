"""What is measured: how many clients ask at once, and for what."""

from dataclasses import dataclass

OUT = 64
"""Tokens of every answer."""


@dataclass(frozen=True)
class Cell:
    """One kind of load; every client of a closed loop asks as soon as its last answer is complete."""

    name: str
    clients: int
    prompt: int
    """Tokens of a prompt, about: chat template and nonce included."""
    shared: bool = False
    """The nonce comes after a prefix that all prompts have in common, and not at the start."""
    sampled: bool = False
    """Temperature 0.7 and top_p 0.9 instead of greedy."""


SHORT, LONG = 30, 1000
CELLS = (
    Cell("1", 1, SHORT),
    Cell("8", 8, SHORT),
    Cell("16", 16, SHORT),
    Cell("64", 64, SHORT),
    Cell("1-long", 1, LONG),
    Cell("16-long", 16, LONG),
    Cell("16-sampled", 16, SHORT, sampled=True),
    Cell("16-shared", 16, LONG, shared=True),
)
QUICK = ("1", "16", "64")
