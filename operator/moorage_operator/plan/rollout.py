"""The rollout, judged: what it may do now, whether the candidate is promoted or given up, and what it waits for.

One mechanism for all strategies: gates, holds, pauses, the deadline and missing gateways all freeze or end a rollout in
the same way. What differs is the stages (`steps`), and that a RollingUpdate has none.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime

from moorage_api.conditions import Reason
from moorage_api.duration import duration_value
from moorage_api.status import Progress, RolloutStatus, WindowFigures
from moorage_operator.plan import budgeting, capacity, clock, gates
from moorage_operator.plan.capacity import Budget
from moorage_operator.plan.divide import Course, Crew, Exchange
from moorage_operator.plan.finding import Finding
from moorage_operator.plan.revisions import Revision
from moorage_operator.plan.situation import Situation, strategy
from moorage_operator.plan.steps import Stage, stages
from moorage_operator.plan.times import from_text
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


@dataclass(frozen=True)
class _Rollout:
    """A rollout from one revision to another."""

    found: Situation
    stable: Revision
    candidate: Revision
    crew: Crew
    before: RolloutStatus
    course: Course
    drains: bool
    stages: tuple[Stage, ...]

    @property
    def hastened(self) -> bool:
        """Whether holds and gates are skipped: a person said so, or the revision has served before."""
        return self.candidate.standing.steering in {"promote", "back"}

    @property
    def unjudged(self) -> bool:
        """Whether no gate is asked: nor where nobody asks for the model, since there is nothing to judge by."""
        return self.hastened or self.found.scale.proves

    @property
    def begun(self) -> datetime:
        """When the stage began; now, when it begins."""
        return self.before.step_since or self.found.now.replace(microsecond=0)


@dataclass(frozen=True)
class _Room:
    """Replicas above and below spec.replicas."""

    rollout: Budget
    restarts: Budget
    """For the restart of a revision."""
    exchange: Exchange | None = None


@dataclass(frozen=True)
class _Beat:
    """What one look at a rollout comes to, before the clock."""

    said: Finding
    course: Course
    step: int
    running: bool = False
    """Whether a further replica is awaited: the deadline's clock runs."""
    since: datetime | None = None
    window: tuple[WindowFigures, ...] = ()
    until: datetime | None = None
    failed: Finding | None = None
    promote: bool = False
    wakes: tuple[float, ...] = field(default=())


def judge(found: Situation) -> Verdict:
    """Judge the rollout of a situation; where none is under way, only say with which budget the rest goes on."""
    drains = _drains(found)
    stable, candidate = found.stable, found.candidate
    proves = found.scale.proves
    room = _room(found, drains=drains)
    restarts = room.restarts
    course = Course(
        # What is at zero promises nothing.
        budget=Budget(1, 1) if proves else room.rollout,
        full=found.size,
        exchange=room.exchange,
        resting=proves,
        silent=bool(found.routing.silent),
        hurried=stable is not None and any(one.trouble is not None for one in found.of(stable.number)),
    )
    if candidate is None:
        return Verdict(course=course, restarts=restarts, drains=drains, wakes=_patience(found))
    crew = found.crew(candidate.number)
    if found.scale.asleep and returns(candidate.standing):
        return Verdict(course=course, restarts=restarts, promote=True)
    if stable is None or (not found.scale.asleep and _came_at_zero(found, candidate)):
        promote = crew.ready >= min(found.wanted, 1)
        return Verdict(
            course, restarts=restarts, drains=drains, promote=promote, said=_held_back(found, candidate, crew)
        )
    listed = () if strategy(found) == "RollingUpdate" else stages(found.rollout, found.size)
    rollout = _Rollout(found, stable, candidate, crew, found.before, course, drains, listed)
    return replace(_verdict(rollout, _budgeted(rollout, _beat(rollout))), restarts=restarts)


def _room(found: Situation, *, drains: bool) -> _Room:
    room, warm = capacity.budget(found.rollout, found.wanted, drains=drains), found.rollout.keep_warm
    # What a rollout starts, and what is kept warm, may be there when a person asks for a restart.
    numbers = {one.number for one in (found.stable, found.candidate) if one is not None}
    beside = found.wanted * (len(numbers) - 1) + (warm.replicas if warm is not None else 0)
    restarts = budgeting.restarting(room, found.ledger.most(numbers), found.wanted + beside)
    if not _is_tight(found):
        return _Room(room, restarts)
    ready = sum(1 for one in found.replicas if one.ready)
    exchange = _exchange(found)
    if exchange is None:
        return _Room(budgeting.replacing(room, found.wanted, ready), restarts)
    left, reached = _beside_the_next(found, exchange)
    enough = left + exchange.worth(reached) >= found.wanted - room.unavailable
    if not enough and not (drains and left + reached and capacity.is_auto(found.rollout, strategy(found))):
        return _Room(Budget(0, max(0, found.wanted - ready)), restarts)
    return _Room(Budget(0, max(0, found.wanted - min(left + reached, ready))), restarts, exchange)


def _exchange(found: Situation) -> Exchange | None:
    """How one replica of a RollingUpdate takes the place of several; None where it does not."""
    stable, candidate = found.stable, found.candidate
    if stable is None or candidate is None or found.scale.proves or strategy(found) != "RollingUpdate":
        return None
    surge = capacity.budget(found.rollout, found.wanted, drains=False).surge
    return found.ledger.exchange(stable.number, candidate.number, surge)


def _beside_the_next(found: Situation, exchange: Exchange) -> tuple[int, int]:
    """Replicas of the stable revision that may stay beside the next of the candidate, and those that this one has."""
    reached = found.crew(found.candidate.number).relied_on if found.candidate is not None else 0
    return exchange.left(found.wanted, min(found.size, reached + 1)), reached


def _is_tight(found: Situation) -> bool:
    """Whether the budget has no room for one replica more than wanted."""
    old = found.stable or found.target
    return old is not None and found.ledger.is_tight(found.wanted, old.number, (found.target or old).number, found.size)


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


def _beat(rollout: _Rollout) -> _Beat:
    if not rollout.found.wanted:
        return _asleep(rollout)
    crashed = next((one.trouble for one in rollout.found.of(rollout.candidate.number) if one.crashes), None)
    step = rollout.before.step or (1 if rollout.stages else 0)
    if crashed is not None:
        return _frozen(rollout, step, Finding(crashed.reason, crashed.detail), failed=True)
    if (halt := _halt(rollout)) is not None:
        return _frozen(rollout, step, halt)
    return _staged(rollout) if rollout.stages else _rolling(rollout)


def _asleep(rollout: _Rollout) -> _Beat:
    """Without replicas nothing is proven: what was begun begins its stage anew when there are some again.

    What gates have seen until then is kept where the model sleeps: one that is used now and then would never have seen
    enough at a time.
    """
    course = replace(rollout.course, frozen=True)
    if not rollout.found.scale.asleep:
        said = Finding(Reason.SCALED_TO_ZERO, "spec.replicas is 0; it goes on when there are replicas")
        return _Beat(said, course, rollout.before.step or 0)
    said = Finding(Reason.SCALED_TO_ZERO, "Nobody asks for the model; it goes on at the next request")
    return _Beat(said, course, rollout.before.step or 0, window=rollout.before.window if rollout.stages else ())


def _halt(rollout: _Rollout) -> Finding | None:
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


def _frozen(rollout: _Rollout, step: int, said: Finding, *, failed: bool = False) -> _Beat:
    """Everything stays as it is."""
    before = rollout.before
    course = replace(rollout.course, frozen=True)
    if rollout.stages:
        index = min(step, len(rollout.stages))
        course = replace(course, size=rollout.stages[index - 1].size, weight=_weight(rollout, index))
    return _Beat(said, course, step, since=before.step_since, window=before.window, failed=said if failed else None)


def _weight(rollout: _Rollout, index: int) -> int:
    """The share of requests of stage `index`, or of the one before until it is set."""
    if rollout.before.step_since is not None:
        return rollout.stages[index - 1].weight
    return _weight_before(rollout, index)


def _weight_before(rollout: _Rollout, index: int) -> int:
    """The share until that of stage `index` is set: where stages were skipped, what is there may not carry more."""
    if rollout.hastened:
        return rollout.crew.weight
    return min(rollout.stages[index - 2].weight, rollout.crew.weight) if index > 1 else 0


def _budgeted(rollout: _Rollout, beat: _Beat) -> _Beat:
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


def _rolling(rollout: _Rollout) -> _Beat:
    found, crew = rollout.found, rollout.crew
    step = min(crew.reached, found.size)
    same = rollout.before.step == step and rollout.before.step_since is not None
    since = rollout.begun if same else found.now.replace(microsecond=0)
    window = _window_since(rollout) if same else _window(rollout)
    if step and (gate := _gate(rollout, since, window)) is not None:
        frozen = replace(rollout.course, frozen=True)
        return _gated(gate, _Beat(_gate_said(gate), frozen, step, since=since, window=window))
    counted = f"{crew.reached} of {found.size} replicas are routable"
    if crew.relied_on >= found.size:
        return _Beat(Finding(Reason.ROLLING_OUT, counted), rollout.course, step, promote=True)
    said = Finding(Reason.ROLLING_OUT, counted)
    return _Beat(said, rollout.course, step, running=True, since=since, window=window)


# Canary and BlueGreen: stages with a size and an exact weight.


def _staged(rollout: _Rollout) -> _Beat:
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
        return _Beat(said, course, index, since=begun, window=kept or _window(rollout))
    said = Finding(
        Reason.ROLLING_OUT,
        f"step {index} of {len(rollout.stages)}: {rollout.crew.reached} of {stage.size} replicas are routable",
    )
    weight = _weight_before(rollout, index)
    return _Beat(said, replace(course, weight=weight), index, running=True, window=kept)


def _within(rollout: _Rollout, index: int, course: Course) -> _Beat:
    """The stage's weight is set: hold it, judge it, leave it."""
    found, stage, count = rollout.found, rollout.stages[index - 1], len(rollout.stages)
    window = _window_since(rollout)
    until = rollout.begun + stage.hold
    place = f"step {index} of {count}"
    beat = _Beat(Finding(Reason.STEP_HOLDING, place), course, index, since=rollout.begun, window=window, until=until)
    gate = _gate(rollout, rollout.begun, window) if stage.gated else _before_the_switch(rollout, stage)
    if isinstance(gate, gates.Failed):
        return _gated(gate, beat)
    left = (until - found.now).total_seconds()
    if left > 0 and not rollout.hastened:
        words = f"{place}: {stage.weight} % of the requests until {until:%H:%M:%S} UTC{_needed_next(rollout, index)}"
        said = Finding(Reason.STEP_HOLDING, words)
        return replace(beat, said=said, wakes=(left,))
    if gate is not None:
        return _gated(gate, replace(beat, until=None))
    if index < count:
        said = Finding(Reason.ROLLING_OUT, f"{place} is done")
        return replace(beat, said=said, step=index + 1, since=None, window=(), until=None)
    short = f"{rollout.crew.relied_on} of {found.size} replicas are in the tables of all gateways"
    promote = rollout.crew.relied_on >= found.size
    return replace(beat, said=Finding(Reason.ROLLING_OUT, short), until=None, running=not promote, promote=promote)


def _needed_next(rollout: _Rollout, index: int) -> str:
    """What the next stage will need, said before it starts, so that somebody can make room."""
    more = rollout.stages[index].size - rollout.stages[index - 1].size if index < len(rollout.stages) else 0
    if more <= 0:
        return ""
    given = rollout.candidate.accelerators
    each = given.count * pods_of(rollout.candidate.template) if given is not None else 0
    of = f" with {each} x {given.resource} each" if given is not None else ""
    return f"; the next step needs room for {more} more {'replica' if more == 1 else 'replicas'}{of}"


# Gates.


def _gate(rollout: _Rollout, since: datetime, window: tuple[WindowFigures, ...]) -> gates.Blocked | gates.Failed | None:
    """The worst that any gate says."""
    if rollout.unjudged or not rollout.found.rollout.gates:
        return None
    answering = rollout.found.routing.answering
    candidate = gates.since(answering, rollout.candidate.number, window, since)
    # After the switch of a blue-green rollout, and at the end of one without surge, the stable revision has no requests
    # any more: it is judged by those before.
    if rollout.found.weights.get(rollout.stable.number):
        stable = gates.since(answering, rollout.stable.number, window, since)
    else:
        stable = gates.until(answering, rollout.stable.number, window)
    judged = [gates.judge(gate, candidate, stable) for gate in rollout.found.rollout.gates]
    failed = next((one for one in judged if isinstance(one, gates.Failed)), None)
    return failed or next((one for one in judged if one is not None), None)


def _before_the_switch(rollout: _Rollout, stage: Stage) -> gates.Blocked | None:
    """What the old colour has to be compared by must be known while it still has requests."""
    if stage.weight or rollout.hastened:
        return None
    stable = gates.all_along(rollout.found.routing.answering, rollout.stable.number)
    return gates.unmeasured(rollout.found.rollout.gates, stable)


def _gate_said(gate: gates.Blocked | gates.Failed) -> Finding:
    return Finding(Reason.GATE_FAILED if isinstance(gate, gates.Failed) else Reason.GATE_HOLDING, gate.message)


def _gated(gate: gates.Blocked | gates.Failed, beat: _Beat) -> _Beat:
    said = _gate_said(gate)
    return replace(beat, said=said, failed=said if isinstance(gate, gates.Failed) else None)


def _window(rollout: _Rollout) -> tuple[WindowFigures, ...]:
    """What gates are judged from, when a stage begins."""
    if not rollout.found.rollout.gates or rollout.unjudged:
        return ()
    return gates.window(rollout.found.routing.answering, (rollout.stable.number, rollout.candidate.number))


def _window_since(rollout: _Rollout) -> tuple[WindowFigures, ...]:
    """The same of a stage that has begun, with what was not known then."""
    written, numbers = rollout.before.window, (rollout.stable.number, rollout.candidate.number)
    if not rollout.found.rollout.gates or rollout.unjudged:
        return written
    return gates.completed(written, rollout.found.routing.answering, numbers, rollout.begun)


# The clock, and what follows from it all.


def _verdict(rollout: _Rollout, beat: _Beat) -> Verdict:
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
        wakes=(*beat.wakes, *((max(left, 0.1),) if running else ()), *_patience(found)),
        busy=(running and failed is None) or beat.promote or gives_up,
    )


def _as_told(rollout: _Rollout, failed: Finding | None) -> Finding | None:
    """In the words that were written first: its figures may go on changing for as long as nobody acts."""
    before = rollout.before
    if failed is None or failed.reason != before.reason or not before.message:
        return failed
    return replace(failed, message=before.message)


def _late(rollout: _Rollout, counted: str) -> str:
    """That the deadline is over, and what kept the candidate, where that is known: soon its pods can tell no more."""
    found = rollout.found
    trouble = next((one.trouble for one in found.of(rollout.candidate.number) if one.trouble is not None), None)
    why = f"{trouble.reason}: {trouble.detail}" if trouble is not None else found.refusal()
    late = f"No further replica became routable within {found.rollout.progress_deadline}: {counted}"
    return f"{late}; {why}" if why else late


def _status(rollout: _Rollout, beat: _Beat, said: Finding, progress: Progress) -> RolloutStatus:
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


def _drains(found: Situation) -> bool:
    """Whether replicas of the stable revision give way, decided once for the whole way to the target."""
    target = found.target
    if target is None or not (found.candidate or found.leftovers()):
        return False
    auto = capacity.is_auto(found.rollout, strategy(found))
    ready = sum(1 for one in found.replicas if one.ready)
    exchange = _exchange(found)
    # What needs the place of all that serve takes none of them: it has proven nothing yet.
    gains = exchange is None or any(_beside_the_next(found, exchange))
    if auto and gains and _is_tight(found) and capacity.may_drain(found.wanted, ready):
        return True
    if found.stable is None or target.standing.drains or not auto:
        return target.standing.drains
    return capacity.must_drain(found.wanted, ready, found.of(target.number), found.now) and _has_a_place(found, target)


def _has_a_place(found: Situation, target: Revision) -> bool:
    """Whether a node would take a replica of the target, whichever of the stable ones gave way; no until that is known.

    What asks for more than any node has, or than one leaves, would find no place, and the deployment would be one
    replica short for good. Of replicas of several pods only the former is judged.
    """
    nodes, stable = found.nodes, found.stable
    if nodes is None or stable is None:
        return False
    several = max(pods_of(target.template), pods_of(stable.template)) > 1
    ready = () if several else tuple(one.uid for one in found.of(stable.number) if one.ready)
    return nodes.would_replace(target.template["spec"], stable.template["spec"], ready)


def _patience(found: Situation) -> tuple[float, ...]:
    """Seconds until a replica without a node has waited long enough."""
    if found.target is None or not capacity.is_auto(found.rollout, strategy(found)):
        return ()
    left = capacity.patience(found.of(found.target.number), found.now)
    return (left.total_seconds(),) if left is not None and left.total_seconds() > 0 else ()
