"""Waiting for what is to come, with a deadline, in place of sleeping and hoping."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

_PAUSE: Final = 0.1
"""Between two looks: a look is often a program of its own."""

_T = TypeVar("_T")


def eventually(look: Callable[[], _T], accept: Callable[[_T], bool], seconds: float = 120) -> _T:
    """Look again until what is seen is accepted, and return it.

    Raises:
        AssertionError: it was not accepted in time; says what was seen last.
    """
    deadline = time.monotonic() + seconds
    while not accept(seen := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s; last seen: {seen}")
        time.sleep(_PAUSE)
    return seen
