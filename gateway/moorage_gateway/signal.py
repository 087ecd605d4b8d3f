"""An event that happens again and again."""

import asyncio


class Signal:
    """Wakes all who wait, each time that it is told.

    Attributes:
        next: Set when it is next told. Take it before looking at what it is about, and nothing is missed.
    """

    def __init__(self) -> None:
        self.next = asyncio.Event()

    def tell(self) -> None:
        """It has happened."""
        told, self.next = self.next, asyncio.Event()
        told.set()
