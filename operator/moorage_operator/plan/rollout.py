"""The rollout, judged: what it may do now, whether the candidate is promoted or given up, and what it waits for.

One mechanism for all strategies: gates, holds, pauses, the deadline and missing gateways all freeze or end a rollout in
the same way. What differs is the stages (`steps`), and that a RollingUpdate has none.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime

from moorage_api.conditions import Reason
from moorage_api.duration import duration_value
from moorage_api.status import Progress, RolloutStatus, WindowFigures
from moorage_operator.plan import capacity, clock, gates
from moorage_operator.plan.divide import Course, Crew
from moorage_operator.plan.finding import Finding
from moorage_operator.plan.revisions import Revision
from moorage_operator.plan.situation import Situation, strategy
from moorage_operator.plan.steps import Stage, stages
from moorage_operator.plan.times import from_text
from moorage_operator.render.record import Role

NO_GATEWAYS = "A canary needs a gateway, which gives each revision its exact share; this installation has none"


@dataclass(frozen=True)
class Verdict:
    """What comes of a rollout now."""

    course: Course = field(default_factory=Course)
    promote: bool = False
    given_up: Finding | None = None
    """Why the candidate is given up."""
    drains: bool = False
    """From now on one replica of the stable revision gives way for each of the candidate."""
    said: Finding | None = None
    """What it does or waits for; None when nothing is rolled out."""
    stalled: bool = False
    """Nothing goes on by itself."""
    status: RolloutStatus | None = None
    wakes: tuple[float, ...] = ()
    """Seconds after which time alone changes something."""


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
    def begun(self) -> datetime:
        """When the stage began; now, when it begins."""
        return self.before.step_since or self.found.now.replace(microsecond=0)


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
    course = Course(
        budget=capacity.budget(found.rollout, found.wanted, drains=drains),
        silent=bool(found.routing.silent),
        hurried=stable is not None and any(one.trouble is not None for one in found.of(stable.number)),
    )
    if candidate is None:
        return Verdict(course=course, drains=drains, wakes=_patience(found))
    crew = found.crew(candidate.number)
    if stable is None or _came_at_zero(found, candidate):
        return Verdict(course=course, promote=crew.ready >= min(found.wanted, 1))
    listed = () if strategy(found) == "RollingUpdate" else stages(found.rollout, found.wanted)
    rollout = _Rollout(found, stable, candidate, crew, found.before, course, drains, listed)
    return _verdict(rollout, _beat(rollout))


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
    """Without replicas nothing is proven: what was begun begins its stage anew when there are some again."""
    course = replace(rollout.course, frozen=True)
    said = Finding(Reason.SCALED_TO_ZERO, "spec.replicas is 0; it goes on when there are replicas")
    return _Beat(said, course, rollout.before.step or 0)


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


# A RollingUpdate: each replica of the candidate that is routable is a step.


def _rolling(rollout: _Rollout) -> _Beat:
    found, crew = rollout.found, rollout.crew
    step = min(crew.reached, found.wanted)
    same = rollout.before.step == step and rollout.before.step_since is not None
    since = rollout.begun if same else found.now.replace(microsecond=0)
    window = _window_since(rollout) if same else _window(rollout)
    if step and (gate := _gate(rollout, since, window)) is not None:
        frozen = replace(rollout.course, frozen=True)
        return _gated(gate, _Beat(_gate_said(gate), frozen, step, since=since, window=window))
    counted = f"{crew.reached} of {found.wanted} replicas are routable"
    if crew.relied_on >= found.wanted:
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
    if entered:
        return _within(rollout, index, replace(course, weight=stage.weight))
    if rollout.crew.reached >= stage.size:
        said = Finding(Reason.STEP_HOLDING, f"step {index} of {len(rollout.stages)}: {stage.weight} % of the requests")
        return _Beat(said, course, index, since=rollout.found.now.replace(microsecond=0), window=_window(rollout))
    said = Finding(
        Reason.ROLLING_OUT,
        f"step {index} of {len(rollout.stages)}: {rollout.crew.reached} of {stage.size} replicas are routable",
    )
    return _Beat(said, replace(course, weight=_weight_before(rollout, index)), index, running=True)


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
    short = f"{rollout.crew.relied_on} of {found.wanted} replicas are in the tables of all gateways"
    promote = rollout.crew.relied_on >= found.wanted
    return replace(beat, said=Finding(Reason.ROLLING_OUT, short), until=None, running=not promote, promote=promote)


def _needed_next(rollout: _Rollout, index: int) -> str:
    """What the next stage will need, said before it starts, so that somebody can make room."""
    more = rollout.stages[index].size - rollout.stages[index - 1].size if index < len(rollout.stages) else 0
    if more <= 0:
        return ""
    given = rollout.candidate.accelerators
    of = f" with {given.count} x {given.resource} each" if given is not None else ""
    return f"; the next step needs room for {more} more {'replica' if more == 1 else 'replicas'}{of}"


# Gates.


def _gate(rollout: _Rollout, since: datetime, window: tuple[WindowFigures, ...]) -> gates.Blocked | gates.Failed | None:
    """The worst that any gate says."""
    if rollout.hastened or not rollout.found.rollout.gates:
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
    if not rollout.found.rollout.gates or rollout.hastened:
        return ()
    return gates.window(rollout.found.routing.answering, (rollout.stable.number, rollout.candidate.number))


def _window_since(rollout: _Rollout) -> tuple[WindowFigures, ...]:
    """The same of a stage that has begun, with what was not known then."""
    written, numbers = rollout.before.window, (rollout.stable.number, rollout.candidate.number)
    if not rollout.found.rollout.gates or rollout.hastened:
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
        steps=len(rollout.stages) or rollout.found.wanted,
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
    if target is None or found.stable is None or not (found.candidate or found.leftovers()):
        return False
    if target.standing.drains:
        return True
    if not capacity.is_auto(found.rollout, strategy(found)):
        return False
    ready = sum(1 for one in found.replicas if one.ready)
    return capacity.must_drain(found.wanted, ready, found.of(target.number), found.now) and _has_a_place(found, target)


def _has_a_place(found: Situation, target: Revision) -> bool:
    """Whether a node would take a replica of the target if others gave way there; no for as long as that is looked up.

    What asks for more than any node has would find no place, and the deployment would be one replica short for good.
    """
    if found.nodes is not None:
        return found.nodes.would_run(target.template["spec"])
    given = target.accelerators
    troubles = (one.trouble for one in found.of(target.number))
    return given is None or not any(one is not None and given.lacked(one.detail) for one in troubles)


def _patience(found: Situation) -> tuple[float, ...]:
    """Seconds until a replica without a node has waited long enough."""
    if found.target is None or not capacity.is_auto(found.rollout, strategy(found)):
        return ()
    left = capacity.patience(found.of(found.target.number), found.now)
    return (left.total_seconds(),) if left is not None and left.total_seconds() > 0 else ()
