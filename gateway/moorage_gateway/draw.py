"""Where a request falls between the revisions of its model: a number in [0, 1) that the weights cut into shares."""

from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Final

from moorage_gateway.table import Key, Model

_PARTS: Final = 100
"""Weights are whole percents."""
_STEP: Final = 61
"""Has no factor in common with 100, so that a hundred steps meet every part once; and is next to 100 times the golden
ratio, so that any few steps in a row lie far apart (https://en.wikipedia.org/wiki/Low-discrepancy_sequence)."""


class Draws:
    """Gives each request its number. One process has one.

    A request with a session (the client's word for who asks) always falls in the same place, in every gateway, with
    nothing remembered: as a weight rises, sessions move to that revision and none moves away. All others take turns:
    of any hundred in a row each revision gets as many as its weight says.

    Args:
        chance: Uniform in [0, 1): where a model's turns begin, so that several gateways do not go in step.
    """

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._turns: dict[Key, int] = {}

    def next(self, model: Model, session: str) -> float:
        """The number of one request."""
        return sticky(model.key, session) if session else self._turn(model.key)

    def keep(self, models: Iterable[Model]) -> None:
        """Forget the turns of all but these."""
        kept = {model.key for model in models}
        self._turns = {key: part for key, part in self._turns.items() if key in kept}

    def _turn(self, key: Key) -> float:
        before = self._turns.get(key)
        part = int(self._chance() * _PARTS) if before is None else (before + _STEP) % _PARTS
        self._turns[key] = part
        return (part + 0.5) / _PARTS


def sticky(key: Key, session: str) -> float:
    """The place of a session among the requests of a deployment."""
    whose = "\0".join((*key, session)).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(whose, digest_size=6).digest(), "big") / 2**48
