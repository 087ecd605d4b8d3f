"""Progress goes to standard error: standard output carries nothing but the result."""

import sys


def say(text: str) -> None:
    """Tell the person who waits."""
    print(text, file=sys.stderr, flush=True)
