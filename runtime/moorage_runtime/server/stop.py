"""Finds stop strings in text that arrives in pieces."""

from collections.abc import Sequence


class StopMatcher:
    """Lets text through up to the stop string that is complete first, and never a part of one.

    What could be the beginning of a stop string is held back until more text decides it.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._longest = max((len(stop) for stop in stops), default=0)
        self._held = ""
        self.matched: str | None = None

    def push(self, text: str) -> str:
        """The text that is now known to precede any stop string; look at `matched` afterwards."""
        if not self._stops:
            return text
        text = self._held + text
        found = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            # The one that is complete first, so that the answer does not depend on where the pieces were cut.
            _, at, self.matched = min(found)
            self._held = ""
            return text[:at]
        keep = self._beginning_at_the_end(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """What was held back and turned out to be plain text, when no more text comes."""
        text, self._held = self._held, ""
        return text

    def _beginning_at_the_end(self, text: str) -> int:
        """How many characters at the end of `text` could be the beginning of a stop string."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            tail = text[-length:]
            if any(stop.startswith(tail) for stop in self._stops):
                return length
        return 0
