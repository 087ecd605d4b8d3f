"""Faults that last a minute, in namespaces of their own, while other tests run."""

import asyncio
import time
from contextlib import contextmanager

OUTAGE_SECONDS = 60
BEFORE, AFTER = {"image": "engine:1"}, {"image": "engine:2"}


class SlowFaults:
    """`silent`: watches that say nothing any more, since `fell_silent`. `cut_off`: no API server, until `back`.

    Each got an edit, whose `generation` is given, at the beginning of the fault.
    """

    def __init__(self, silent, cut_off):
        self.silent, self.cut_off, self.back = silent, cut_off, None
        silent.serves(engine=BEFORE)
        cut_off.serves(engine=BEFORE)
        silent.proxy.hold()
        self.fell_silent, self.edited = time.monotonic(), silent.apply(engine=AFTER)
        cut_off.proxy.begin_outage()
        self.edited_cut_off = cut_off.apply(engine=AFTER)
        self.end = cut_off.proxy.begin(self._end())

    @classmethod
    @contextmanager
    def begin(cls, new_world):
        with new_world() as silent, new_world() as cut_off:
            faults = cls(silent, cut_off)
            try:
                yield faults
            finally:
                faults.end.cancel()

    async def _end(self):
        await asyncio.sleep(OUTAGE_SECONDS)  # how long it lasts is what it is about
        self.back = time.monotonic()
        await self.cut_off.proxy.come_back()
