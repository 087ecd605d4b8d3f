"""The rollout, judged: what it may do now, whether the candidate is promoted or given up, and what it waits for.

One mechanism for all strategies: gates, holds, pauses, the deadline and missing gateways all freeze or end a rollout in
the same way. What differs is the stages (`steps`), and that a RollingUpdate has none.
"""

from dataclasses import dataclass, field, replace

from moorage_api.conditions import Reason
from moorage_api.duration import duration_value
from moorage_api.status import Progress, RolloutStatus
from moorage_operator.plan import capacity, clock, gates, gating, room
from moorage_operator.plan.capacity import Budget
from moorage_operator.plan.divide import Course, Crew
from moorage_operator.plan.finding import Finding
from moorage_operator.plan.revisions import Revision
from moorage_operator.plan.situation import Situation, strategy
from moorage_operator.plan.steps import stages
from moorage_operator.plan.times import from_text
from moorage_operator.plan.trial import Beat, Trial
from moorage_operator.plan.zero import returns
from moorage_operator.render.record import Role
from moorage_operator.render.sharding import pods_of

NO_GATEWAYS = "A canary needs a gateway, which gives each revision its exact share; this installation has none"


@dataclass(frozen=True)
class Verdict:
    """What comes of a rollout now."""

    course: Course = field(default_factory=Course)
    promote: bool = False
    given_up: Finding | None = None
    """Why the candidate is given up."""
    restarts: Budget = field(default_factory=lambda: Budget(1, 0))
    """How pods of a revision are replaced by others of the same, when a person restarts it."""
    drains: bool = False
    """From now on one replica of the stable revision gives way for each of the candidate."""
    said: Finding | None = None
    """What it does or waits for; None when nothing is rolled out."""
    stalled: bool = False
    """Nothing goes on by itself."""
    status: RolloutStatus | None = None
    wakes: tuple[float, ...] = ()
    """Seconds after which time alone changes something."""
    busy: bool = False
    """A replica is awaited, for no longer than the deadline, or the rollout ends now: no time to fall asleep."""


def judge(found: Situation) -> Verdict:
    """Judge the rollout of a situation; where none is under way, only say with which budget the rest goes on."""
    gives_way = room.gives_way(found)
    stable, candidate = found.stable, found.candidate
    proves = found.scale.proves
    around = room.around(found, drains=gives_way)
    restarts = around.restarts
    course = Course(
        # What is at zero promises nothing.
        budget=Budget(1, 1) if proves else around.rollout,
        full=found.size,
        exchange=around.exchange,
        resting=proves,
        silent=bool(found.routing.silent),
        hurried=stable is not None and any(one.trouble is not None for one in found.of(stable.number)),
    )
    if candidate is None:
        return Verdict(course=course, restarts=restarts, drains=gives_way, wakes=room.patience(found))
    crew = found.crew(candidate.number)
    if found.scale.asleep and returns(candidate.standing):
        return Verdict(course=course, restarts=restarts, promote=True)
    if stable is None or (not found.scale.asleep and _came_at_zero(found, candidate)):
        promote = crew.ready >= min(found.wanted, 1)
        return Verdict(
            course, restarts=restarts, drains=gives_way, promote=promote, said=_held_back(found, candidate, crew)
        )
    listed = () if strategy(found) == "RollingUpdate" else stages(found.rollout, found.size)
    rollout = Trial(found, stable, candidate, crew, found.before, course, gives_way, listed)
    return replace(_verdict(rollout, _budgeted(rollout, _beat(rollout))), restarts=restarts)


def _came_at_zero(found: Situation, candidate: Revision) -> bool:
    """Whether spec came to ask for the candidate while it asks for no replicas: there is nothing to roll out then.

    The records tell, not the status, which may be lost: one that is recorded as a candidate was on trial when the last
    replica went, and one that was given up is not proven by being asked for again.
    """
    back, recorded = candidate.standing.goes_back, candidate.recorded
    if found.wanted or candidate.standing.paused or (found.rollout.paused and not back):
        return False
    if recorded is None:
        return True
    return recorded.role not in {Role.CANDIDATE, Role.FAILED} and (back or not recorded.reason)


def _beat(rollout: Trial) -> Beat:
    if not rollout.found.wanted:
        return _asleep(rollout)
    crashed = next((one.trouble for one in rollout.found.of(rollout.candidate.number) if one.crashes), None)
    step = rollout.before.step or (1 if rollout.stages else 0)
    if crashed is not None:
        return _frozen(rollout, step, Finding(crashed.reason, crashed.detail), failed=True)
    if (halt := _halt(rollout)) is not None:
        return _frozen(rollout, step, halt)
    return _staged(rollout) if rollout.stages else _rolling(rollout)


def _asleep(rollout: Trial) -> Beat:
    """Without replicas nothing is proven: what was begun begins its stage anew when there are some again.

    What gates have seen until then is kept where the model sleeps: one that is used now and then would never have seen
    enough at a time.
    """
    course = replace(rollout.course, frozen=True)
    if not rollout.found.scale.asleep:
        said = Finding(Reason.SCALED_TO_ZERO, "spec.replicas is 0; it goes on when there are replicas")
        return Beat(said, course, rollout.before.step or 0)
    said = Finding(Reason.SCALED_TO_ZERO, "Nobody asks for the model; it goes on at the next request")
    return Beat(said, course, rollout.before.step or 0, window=rollout.before.window if rollout.stages else ())


def _halt(rollout: Trial) -> Finding | None:
    """What stops a rollout wherever it is."""
    found = rollout.found
    if found.routing.silent:
        return Finding(Reason.GATEWAY_UNREACHABLE, found.routing.silent)
    if found.routing.gateways is None and strategy(found) == "Canary" and not rollout.hastened:
        return Finding(Reason.GATEWAY_UNREACHABLE, NO_GATEWAYS)
    if rollout.candidate.standing.paused:
        return Finding(Reason.PAUSED, f"A person paused it (resume/r{rollout.candidate.number} lets it go on)")
    if found.rollout.paused and not rollout.hastened:
        return Finding(Reason.PAUSED, "spec.rollout.paused is true")
    return None


def _frozen(rollout: Trial, step: int, said: Finding, *, failed: bool = False) -> Beat:
    """Everything stays as it is."""
    before = rollout.before
    course = replace(rollout.course, frozen=True)
    if rollout.stages:
        index = min(step, len(rollout.stages))
        course = replace(course, size=rollout.stages[index - 1].size, weight=_weight(rollout, index))
    return Beat(said, course, step, since=before.step_since, window=before.window, failed=said if failed else None)


def _weight(rollout: Trial, index: int) -> int:
    """The share of requests of stage `index`, or of the one before until it is set."""
    if rollout.before.step_since is not None:
        return rollout.stages[index - 1].weight
    return _weight_before(rollout, index)


def _weight_before(rollout: Trial, index: int) -> int:
    """The share until that of stage `index` is set: where stages were skipped, what is there may not carry more."""
    if rollout.hastened:
        return rollout.crew.weight
    return min(rollout.stages[index - 2].weight, rollout.crew.weight) if index > 1 else 0


def _budgeted(rollout: Trial, beat: Beat) -> Beat:
    """A further replica is awaited, and the budget has no room for it: that is said, and no time counts meanwhile."""
    found, crew, course = rollout.found, rollout.crew, beat.course
    size = found.size if course.size is None else course.size
    stuck = course.size is None and course.budget == Budget(0, 0) and course.exchange is None
    said = _held_back(found, rollout.candidate, crew, size, stuck=stuck) if beat.running else None
    return beat if said is None else replace(beat, said=said, running=False)


def _held_back(
    found: Situation, candidate: Revision, crew: Crew, size: int | None = None, *, stuck: bool = False
) -> Finding | None:
    """That the budget has no room for one more replica of the candidate, where nothing else is in its way."""
    size, ledger = found.size if size is None else size, found.ledger
    if crew.reached < crew.replicas or crew.replicas >= size or not (stuck or ledger.holds_back(crew.number)):
        return None
    resource = candidate.accelerators.resource if candidate.accelerators is not None else "accelerators"
    needed, free = ledger.costs.get(crew.number, 0), max(0, ledger.room)
    words = f"{crew.reached} of {size} replicas are routable; one more needs {needed} x {resource}"
    return Finding(Reason.WAITING_FOR_BUDGET, f"{words}, and {free} of the budget of {ledger.limit} are free")


# A RollingUpdate: each replica of the candidate that is routable is a step.


def _rolling(rollout: Trial) -> Beat:
    found, crew = rollout.found, rollout.crew
    step = min(crew.reached, found.size)
    same = rollout.before.step == step and rollout.before.step_since is not None
    since = rollout.begun if same else found.now.replace(microsecond=0)
    window = gating.window_since(rollout) if same else gating.window_now(rollout)
    if step and (gate := gating.worst(rollout, since, window)) is not None:
        frozen = replace(rollout.course, frozen=True)
        return gating.told(gate, Beat(gating.said_of(gate), frozen, step, since=since, window=window))
    counted = f"{crew.reached} of {found.size} replicas are routable"
    if crew.relied_on >= found.size:
        return Beat(Finding(Reason.ROLLING_OUT, counted), rollout.course, step, promote=True)
    said = Finding(Reason.ROLLING_OUT, counted)
    return Beat(said, rollout.course, step, running=True, since=since, window=window)


# Canary and BlueGreen: stages with a size and an exact weight.


def _staged(rollout: Trial) -> Beat:
    index = min(rollout.before.step or 1, len(rollout.stages))
    if rollout.hastened and rollout.found.rollout.strategy == "Canary":
        index = len(rollout.stages)
    stage = rollout.stages[index - 1]
    entered = index == rollout.before.step and rollout.before.step_since is not None
    course = replace(rollout.course, size=stage.size, weight=stage.weight)
    kept = rollout.before.window if rollout.before.step_since is None else ()
    if entered:
        return _within(rollout, index, replace(course, weight=stage.weight))
    if rollout.crew.reached >= stage.size:
        said = Finding(Reason.STEP_HOLDING, f"step {index} of {len(rollout.stages)}: {stage.weight} % of the requests")
        begun = rollout.found.now.replace(microsecond=0)
        return Beat(said, course, index, since=begun, window=kept or gating.window_now(rollout))
    said = Finding(
        Reason.ROLLING_OUT,
        f"step {index} of {len(rollout.stages)}: {rollout.crew.reached} of {stage.size} replicas are routable",
    )
    weight = _weight_before(rollout, index)
    return Beat(said, replace(course, weight=weight), index, running=True, window=kept)


def _within(rollout: Trial, index: int, course: Course) -> Beat:
    """The stage's weight is set: hold it, judge it, leave it."""
    found, stage, count = rollout.found, rollout.stages[index - 1], len(rollout.stages)
    window = gating.window_since(rollout)
    until = rollout.begun + stage.hold
    place = f"step {index} of {count}"
    beat = Beat(Finding(Reason.STEP_HOLDING, place), course, index, since=rollout.begun, window=window, until=until)
    gate = gating.worst(rollout, rollout.begun, window) if stage.gated else gating.before_the_switch(rollout, stage)
    if isinstance(gate, gates.Failed):
        return gating.told(gate, beat)
    left = (until - found.now).total_seconds()
    if left > 0 and not rollout.hastened:
        words = f"{place}: {stage.weight} % of the requests until {until:%H:%M:%S} UTC{_needed_next(rollout, index)}"
        said = Finding(Reason.STEP_HOLDING, words)
        return replace(beat, said=said, wakes=(left,))
    if gate is not None:
        return gating.told(gate, replace(beat, until=None))
    if index < count:
        said = Finding(Reason.ROLLING_OUT, f"{place} is done")
        return replace(beat, said=said, step=index + 1, since=None, window=(), until=None)
    short = f"{rollout.crew.relied_on} of {found.size} replicas are in the tables of all gateways"
    promote = rollout.crew.relied_on >= found.size
    return replace(beat, said=Finding(Reason.ROLLING_OUT, short), until=None, running=not promote, promote=promote)


def _needed_next(rollout: Trial, index: int) -> str:
    """What the next stage will need, said before it starts, so that somebody can make room."""
    more = rollout.stages[index].size - rollout.stages[index - 1].size if index < len(rollout.stages) else 0
    if more <= 0:
        return ""
    given = rollout.candidate.accelerators
    each = given.count * pods_of(rollout.candidate.template) if given is not None else 0
    of = f" with {each} x {given.resource} each" if given is not None else ""
    return f"; the next step needs room for {more} more {'replica' if more == 1 else 'replicas'}{of}"


# The clock, and what follows from it all.


def _verdict(rollout: Trial, beat: Beat) -> Verdict:
    found = rollout.found
    without_room = capacity.without_room(found.of(rollout.candidate.number)) is not None
    running = beat.running and not without_room
    progress = clock.tick(rollout.before.progress or Progress(), rollout.crew.reached, found.now, running=running)
    deadline = duration_value(found.rollout.progress_deadline)
    left = (deadline - clock.spent(progress, found.now)).total_seconds()
    failed = beat.failed
    if running and left <= 0:
        failed = Finding(Reason.PROGRESS_DEADLINE_EXCEEDED, _late(rollout, beat.said.message))
    failed = _as_told(rollout, failed)
    gives_up = failed is not None and found.rollout.auto_rollback
    course = beat.course if failed is None else replace(beat.course, frozen=True)
    return Verdict(
        course=course,
        promote=beat.promote and failed is None,
        given_up=failed if gives_up else None,
        drains=rollout.drains,
        said=failed or beat.said,
        stalled=failed is not None,
        status=_status(rollout, beat, failed or beat.said, progress),
        wakes=(*beat.wakes, *((max(left, 0.1),) if running else ()), *room.patience(found)),
        busy=(running and failed is None) or beat.promote or gives_up,
    )


def _as_told(rollout: Trial, failed: Finding | None) -> Finding | None:
    """In the words that were written first: its figures may go on changing for as long as nobody acts."""
    before = rollout.before
    if failed is None or failed.reason != before.reason or not before.message:
        return failed
    return replace(failed, message=before.message)


def _late(rollout: Trial, counted: str) -> str:
    """That the deadline is over, and what kept the candidate, where that is known: soon its pods can tell no more."""
    found = rollout.found
    trouble = next((one.trouble for one in found.of(rollout.candidate.number) if one.trouble is not None), None)
    why = f"{trouble.reason}: {trouble.detail}" if trouble is not None else found.refusal()
    late = f"No further replica became routable within {found.rollout.progress_deadline}: {counted}"
    return f"{late}; {why}" if why else late


def _status(rollout: Trial, beat: Beat, said: Finding, progress: Progress) -> RolloutStatus:
    return RolloutStatus(
        strategy=strategy(rollout.found),
        began=from_text(rollout.candidate.standing.since),
        step=beat.step,
        steps=len(rollout.stages) or rollout.found.size,
        reason=said.reason,
        message=said.message,
        step_since=beat.since,
        next=beat.until,
        progress=progress,
        window=beat.window,
    )
