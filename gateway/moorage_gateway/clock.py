"""The time that this gateway tells others."""

import time
from datetime import UTC, datetime


class Clock:
    """The machine's clock as it was at the start, carried on by the monotonic one.

    A step of the machine's clock is none of ours: who subtracts two of our times gets the seconds that have passed.

    Attributes:
        started: When it began, by the monotonic clock, whose moments it is given.
    """

    def __init__(self) -> None:
        self.started = time.monotonic()
        self._offset = time.time() - self.started

    def text(self, moment: float) -> str:
        """That moment as RFC 3339 has it, to the millisecond."""
        text = datetime.fromtimestamp(self._offset + moment, UTC).isoformat(timespec="milliseconds")
        return text.replace("+00:00", "Z")
