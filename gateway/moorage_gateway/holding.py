"""What becomes of a request whose model has no target: go, wait on, or be refused; and when to ask again. Pure."""

import math
from dataclasses import dataclass
from typing import Final, Literal

from moorage_gateway.table import Model, Start

CROWD_SECONDS: Final = 5.0
"""How long room in a replica is waited for."""


@dataclass(frozen=True, slots=True)
class Case:
    """One request that waits, or would have to, as things are now.

    Attributes:
        model: As the table has it; None: it is not there any more.
        load: Of the replica of the model that has the least; None: there is none.
        open: For how many seconds the model has had a replica while requests of it waited.
        ahead: How many of the model's requests came before it and wait.
        behind: How many came after it and wait.
        limit: How many of a model may wait.
        fits: Whether there is memory to keep it in.
        left: Seconds until it has waited long enough.
        leaving: Whether that is because this gateway is about to go.
    """

    model: Model | None
    load: int | None
    open: float
    ahead: int
    behind: int
    limit: int
    fits: bool
    left: float
    leaving: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do, and why, in a word of a closed set."""

    act: Literal["go", "hold", "refuse"]
    reason: str


def judge(case: Case) -> Verdict:
    """Decide about one request.

    Who came first goes first. A replica that has just started gets as many as it computes together, so that the next
    one finds some left to do. But that is for a moment: where there is a replica nobody waits for long, and nobody is
    refused. What is too much for it, it says itself, and other gateways, where nobody waits, do not spare it either.
    """
    if case.model is None:
        return Verdict("refuse", "model_not_found")
    if case.load is not None:
        return _with_replica(case.model, case.load, case)
    refusal = _refusal(case.model, case)
    return Verdict("refuse", refusal) if refusal else Verdict("hold", "no_replica")


def _refusal(model: Model, case: Case) -> str:
    if not model.start.possible:
        return "not_ready"
    if case.ahead >= case.limit:
        return "held_too_many"
    if not case.fits:
        return "held_too_much"
    if case.left <= 0:
        return "leaving" if case.leaving else "held_too_long"
    return ""


def _with_replica(model: Model, load: int, case: Case) -> Verdict:
    if case.left <= 0:
        return Verdict("go", "waited_long_enough")
    if not case.fits:
        return Verdict("go", "no_memory_to_wait_in")
    if case.ahead:
        return Verdict("hold", "not_its_turn")
    if load < model.full_at:
        return Verdict("go", "replica_has_room")
    if case.open < CROWD_SECONDS and case.behind < case.limit:
        return Verdict("hold", "replica_is_full")
    return Verdict("go", "too_many_wait" if case.behind >= case.limit else "room_comes_too_late")


def retry_after(start: Start, now: float, waited: float) -> int | None:
    """Seconds until a replica should be there; None where nothing says when, or no waiting helps.

    A start that is late is taken to be as late again, but not by more than a whole start.

    Args:
        start: What is known.
        now: Seconds since the epoch.
        waited: For how many seconds a request has been waiting: of a model that has never started all that there is
            to go by.
    """
    if not start.possible:
        return None
    if start.ready_at is None:
        guess = start.seconds or waited
    elif start.ready_at > now:
        guess = start.ready_at - now
    else:
        guess = max(1.0, min(now - start.ready_at, start.seconds or math.inf))
    return math.ceil(guess) or None
