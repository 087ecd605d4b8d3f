"""Waiting for what is to come, with a deadline, in place of sleeping and hoping."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

_PAUSE: Final = 0.1
"""Between two looks: a look is often a program of its own."""

_T = TypeVar("_T")


def eventually(look: Callable[[], _T], accept: Callable[[_T], bool], seconds: float = 120) -> _T:
    """Look again until what is seen is accepted, and return it.

    Raises:
        AssertionError: it was not accepted in time; says what was seen last.
    """
    began = time.monotonic()
    deadline = began + seconds
    while not accept(seen := look()):
        now = time.monotonic()
        if now > deadline:
            raise AssertionError(f"not within {seconds:.0f} s; last seen: {seen}")
        time.sleep(max(_PAUSE, now - began))  # looking takes half of the time at most, also on a busy machine
        began = time.monotonic()
    return seen


@contextmanager
def each_second(look: Callable[[], _T], every: float = 1) -> Iterator[list[_T]]:
    """Look once a second, in a thread of its own, for as long as the context lasts; the list grows meanwhile.

    `every`: or after that many.
    """
    seen: list[_T] = []
    over = threading.Event()

    def sample() -> None:
        due = time.monotonic()
        while not over.is_set():
            seen.append(look())
            due += every
            over.wait(max(0.0, due - time.monotonic()))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
