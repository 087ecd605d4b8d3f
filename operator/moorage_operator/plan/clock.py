"""The clock of spec.rollout.progressDeadline: time without a further routable replica, while somebody should bring one.

It is written down only when it starts, stops or begins anew, so it costs no writes while it runs, and it goes on where
it was when the operator was away.
"""

from datetime import datetime, timedelta

from moorage_api.status import Progress


def tick(before: Progress, routable: int, now: datetime, *, running: bool) -> Progress:
    """The clock now: begun anew when there are more routable replicas than ever, stopped unless `running`."""
    now = now.replace(microsecond=0)
    if routable > before.routable:
        return Progress(routable=routable, elapsed=0, since=now if running else None)
    if running:
        return before if before.since is not None else before.model_copy(update={"since": now})
    if before.since is None:
        return before
    return before.model_copy(update={"elapsed": round(spent(before, now).total_seconds()), "since": None})


def spent(progress: Progress, now: datetime) -> timedelta:
    """Time on the clock."""
    running = now - progress.since if progress.since is not None else timedelta()
    return timedelta(seconds=progress.elapsed) + max(running, timedelta())
