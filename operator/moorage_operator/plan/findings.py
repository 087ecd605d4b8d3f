"""The one thing to say about a deployment: what a person most needs to know, and what to do about it.

From the most to the least pressing: spec is unusable; the cluster refuses our objects; a replica of the wanted
revision is in trouble; replicas are on their way; everything is as it should be.
"""

from typing import Final

from moorage_api import names
from moorage_api.conditions import Reason
from moorage_operator.plan.finding import Finding
from moorage_operator.plan.pods import Trouble, furthest
from moorage_operator.plan.revisions import Revision
from moorage_operator.plan.rollout import Verdict
from moorage_operator.plan.shortage import needs
from moorage_operator.plan.situation import Situation
from moorage_operator.plan.target import Pending

_HALTED: Final = frozenset({Reason.PAUSED, Reason.GATEWAY_UNREACHABLE})
"""Whatever its pods do: nothing moves until this is over."""
_KEPT_BACK: Final = frozenset({Reason.STEP_HOLDING, Reason.GATE_HOLDING})
_STOPPED: Final = "spec.replicas is 0, so nothing runs. To serve again: kubectl scale llmdep/NAME --replicas=1."
ASLEEP: Final = "Nobody asks for the model, so nothing runs. The next request starts a replica and waits for it."


def finding(found: Situation, verdict: Verdict, refused: str) -> Finding:
    """Sum the situation up.

    Args:
        found: the situation, after the verdict has come into effect.
        verdict: what comes of the rollout.
        refused: why the API server refused our last write; empty when it did not.
    """
    return _of_spec(found, refused) or _of_target(found) or _of_replicas(found, verdict)


def _of_spec(found: Situation, refused: str) -> Finding | None:
    """What keeps spec from being acted upon."""
    if found.invalid is not None:
        return Finding(Reason.INVALID_SPEC, f"{found.invalid}.{_goes_on(found)}")
    if refused:
        return _explained(Reason.WORKLOAD_REFUSED, refused, found)
    return not_found(found) if found.missing is not None else None


def _of_target(found: Situation) -> Finding | None:
    """What is the matter with the revision that spec asks for, before it has replicas, or once it shall have none."""
    if found.pending is not None:
        return _pending(found.pending, found)
    if found.given_up is not None:
        return _rolled_back(found, found.given_up)
    return _at_zero(found) if found.wanted == 0 else None


def not_found(found: Situation) -> Finding:
    """That spec.rollbackTo names nothing."""
    known = ", ".join(str(one.number) for one in found.revisions) or "none"
    message = f"spec.rollbackTo: revision {found.missing} is not remembered; there are {known}.{_goes_on(found)}"
    return Finding(Reason.REVISION_NOT_FOUND, message)


def _pending(pending: Pending, found: Situation) -> Finding:
    trouble = pending.trouble
    if trouble is not None:
        return _explained(trouble.reason, trouble.detail, found)
    words = f"Revision {pending.number}: {pending.spec.model.source} is looked up."
    return Finding(Reason.RESOLVING_SOURCE, f"{words}{_goes_on(found)}")


def _rolled_back(found: Situation, given_up: Revision) -> Finding:
    """Why the revision that spec asks for does not serve, and what a person may do."""
    why = f"{given_up.standing.reason}: {_on_one_line(given_up.standing.message)}"
    way_out = f"Change spec, or annotate {names.ACTION_ANNOTATION}=retry/r{given_up.number}."
    message = f"Revision {given_up.number} was given up: {why}. {way_out}{_goes_on(found)}"
    return Finding(Reason.ROLLED_BACK, message)


def _of_replicas(found: Situation, verdict: Verdict) -> Finding:
    replicas = found.of(found.target.number) if found.target is not None else ()
    ready = sum(1 for one in replicas if one.ready)
    if found.candidate is None and ready >= found.wanted:
        return _serving(found, len(replicas))
    halted = verdict.said if verdict.said is not None and verdict.said.reason in _HALTED else None
    if verdict.stalled and verdict.said is not None:
        halted = verdict.said
    if halted is not None:
        return _explained(halted.reason, halted.message, found)
    if refusal := found.refusal():
        return _explained(_refusal_reason(refusal), refusal, found)
    trouble = next((one.trouble for one in replicas if one.trouble is not None), None)
    if trouble is not None:
        trouble = _for_accelerators(trouble, found)
        return _explained(trouble.reason, trouble.detail, found)
    return (verdict.said and _kept_back(verdict.said, found)) or _on_the_way(found, ready, furthest(replicas))


def _kept_back(said: Finding, found: Situation) -> Finding | None:
    """What the rollout waits for, where that is not a replica."""
    if said.reason is Reason.WAITING_FOR_BUDGET:
        return _explained(said.reason, said.message, found)
    if said.reason not in _KEPT_BACK:
        return None
    number = found.candidate.number if found.candidate is not None else 0
    return Finding(Reason.ROLLING_OUT, f"Revision {number}: {said.message}.{_goes_on(found)}")


def _serving(found: Situation, existing: int) -> Finding:
    if existing > found.wanted:
        return Finding(Reason.SCALING, f"{existing} replicas run, {found.wanted} are wanted; the others go.")
    noun = "replica answers" if found.wanted == 1 else "replicas answer"
    return Finding(Reason.SERVING, f"{found.wanted} of {found.wanted} {noun} requests.")


def _at_zero(found: Situation) -> Finding:
    if found.replicas:
        return Finding(Reason.SCALING, f"{len(found.replicas)} replicas run, none are wanted; they go.")
    trial = found.on_trial
    if found.scale.asleep:
        rests = f" Revision {trial.number} goes on being rolled out then." if trial is not None else ""
        return Finding(Reason.SCALED_TO_ZERO, f"{ASLEEP}{rests}")
    waits = "" if trial is None else f" Revision {trial.number} is on trial, which goes on then."
    return Finding(Reason.SCALED_TO_ZERO, f"{_for(_STOPPED, found, None)}{waits}")


def _on_the_way(found: Situation, ready: int, phase: Reason) -> Finding:
    counted = f"{ready} of {found.size} replicas answer requests"
    if found.candidate is not None and found.stable is not None:
        existing = len(found.of(found.candidate.number))
        awaited = f"; the next one is at {phase}" if ready < existing or not existing else ""
        message = f"Revision {found.candidate.number}: {counted}{awaited}.{_goes_on(found)}"
        return Finding(Reason.ROLLING_OUT, message)
    if ready:
        return Finding(Reason.SCALING, f"{counted}; the next one is at {phase}.")
    return Finding(phase, f"{counted}. {phase.explanation}")


def _explained(reason: Reason, detail: str, found: Situation) -> Finding:
    detail = _on_one_line(detail)
    number = found.candidate.number if found.candidate is not None and found.stable is not None else None
    where = f"Revision {number}: " if number is not None else ""
    said = f"{detail}. " if detail else ""
    return Finding(reason, f"{where}{said}{_for(reason.explanation, found, number)}{_goes_on(found)}")


def _on_one_line(words: str) -> str:
    """Without its stop, since a sentence goes on; kubectl's table would show no more than the first line."""
    return " ".join(words.split()).rstrip(".")


def _for(explanation: str, found: Situation, number: int | None) -> str:
    """The explanation with the object's own names in it."""
    own = explanation.replace("NAME", found.owner.name)
    return own.replace("/rN", f"/r{number}") if number is not None else own


def _goes_on(found: Situation) -> str:
    """That the stable revision still serves, where it does while something else is the matter."""
    if found.stable is None or (found.candidate is None and _as_it_should_be(found)):
        return ""
    serving = sum(1 for one in found.of(found.stable.number) if one.ready)
    noun = "replica" if serving == 1 else "replicas"
    return f" Revision {found.stable.number} goes on serving with {serving} {noun}." if serving else ""


def _as_it_should_be(found: Situation) -> bool:
    return found.invalid is None and found.missing is None and found.pending is None and found.given_up is None


def _for_accelerators(trouble: Trouble, found: Situation) -> Trouble:
    """A pod without a node for its accelerators waits for a GPU: a person does something else then than for memory."""
    given = found.target.accelerators if found.target is not None else None
    if trouble.reason is not Reason.UNSCHEDULABLE or found.target is None or given is None:
        return trouble
    if not given.lacked(trouble.detail):
        return trouble
    who_has = needs(found.target.template, given, found.nodes)
    return Trouble(Reason.WAITING_FOR_GPU, f"{who_has}. {trouble.detail}" if who_has else trouble.detail)


def _refusal_reason(words: str) -> Reason:
    """Quotas and limit ranges are a matter of amounts; other refusals are a policy of the cluster."""
    amounts = (
        "exceeded quota",
        "status unknown for quota",  # one that is so new that nobody has counted yet
        "failed quota",
        "usage per Container",
        "usage per Pod",
        "must specify limits",
        "must specify requests",
    )
    return Reason.QUOTA_EXCEEDED if any(word in words for word in amounts) else Reason.WORKLOAD_REFUSED
