"""Gates within a rollout: from when on they judge, by which figures, and what is said of what they find."""

from dataclasses import replace
from datetime import datetime

from moorage_api.conditions import Reason
from moorage_api.status import WindowFigures
from moorage_operator.plan import gates
from moorage_operator.plan.finding import Finding
from moorage_operator.plan.steps import Stage
from moorage_operator.plan.trial import Beat, Trial


def worst(rollout: Trial, since: datetime, window: tuple[WindowFigures, ...]) -> gates.Blocked | gates.Failed | None:
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


def before_the_switch(rollout: Trial, stage: Stage) -> gates.Blocked | None:
    """What the old colour has to be compared by must be known while it still has requests."""
    if stage.weight or rollout.hastened:
        return None
    stable = gates.all_along(rollout.found.routing.answering, rollout.stable.number)
    return gates.unmeasured(rollout.found.rollout.gates, stable)


def said_of(gate: gates.Blocked | gates.Failed) -> Finding:
    """What a gate says, for people."""
    return Finding(Reason.GATE_FAILED if isinstance(gate, gates.Failed) else Reason.GATE_HOLDING, gate.message)


def told(gate: gates.Blocked | gates.Failed, beat: Beat) -> Beat:
    """The same look with what a gate says, which ends the rollout where that failed."""
    said = said_of(gate)
    return replace(beat, said=said, failed=said if isinstance(gate, gates.Failed) else None)


def window_now(rollout: Trial) -> tuple[WindowFigures, ...]:
    """What gates are judged from, when a stage begins."""
    if not rollout.found.rollout.gates or rollout.unjudged:
        return ()
    return gates.window(rollout.found.routing.answering, (rollout.stable.number, rollout.candidate.number))


def window_since(rollout: Trial) -> tuple[WindowFigures, ...]:
    """The same of a stage that has begun, with what was not known then."""
    written, numbers = rollout.before.window, (rollout.stable.number, rollout.candidate.number)
    if not rollout.found.rollout.gates or rollout.unjudged:
        return written
    return gates.completed(written, rollout.found.routing.answering, numbers, rollout.begun)
