"""Starts something again that ends by itself, waiting longer after each early end."""

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from moorage_operator.shell.queue import Backoff

log = logging.getLogger(__name__)

SETTLED_SECONDS: Final = 60.0
"""What ran this long was well, and its next end counts as the first."""


async def supervise(
    work: Callable[[], Awaitable[None]],
    *,
    failures: type[Exception],
    clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
    chance: Callable[[], float],
    restarted: Callable[[], Awaitable[None]],
) -> None:
    """Run `work` for ever. Anything that is not one of `failures` is a defect and ends this, too.

    Args:
        work: what to run; it ends only by an exception.
        failures: what it may fail with.
        clock: seconds that never go back.
        sleep: waits that many seconds.
        chance: a number in [0, 1) for the jitter.
        restarted: called before each further start.
    """
    backoff = Backoff(shortest=0.5, longest=30.0)
    early = 0
    while True:
        began = clock()
        try:
            await work()
        except failures as error:
            early = 1 if clock() - began >= SETTLED_SECONDS else early + 1
            delay = backoff.delay(early, chance())
            log.warning("%s; starting again in %.1f s", error, delay)
            await sleep(delay)
        await restarted()
