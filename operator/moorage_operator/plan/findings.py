"""The one thing to say about a deployment: what a person most needs to know, and what to do about it.

From the most to the least pressing: spec is unusable; the cluster refuses our objects; a replica of the wanted
revision is in trouble; replicas are on their way; everything is as it should be.
"""

from dataclasses import dataclass

from moorage_api.conditions import Reason
from moorage_operator.plan.pods import Trouble, furthest
from moorage_operator.plan.situation import Situation


@dataclass(frozen=True)
class Finding:
    """A reason for programs, and a message for people."""

    reason: Reason
    message: str


def finding(found: Situation, refused: str, workload_refusal: str) -> Finding:
    """Sum the situation up.

    Args:
        found: the situation.
        refused: why the API server refused our last write; empty when it did not.
        workload_refusal: why it refused the pods of the wanted revision; empty when it did not.
    """
    if found.invalid is not None:
        return Finding(Reason.INVALID_SPEC, f"{found.invalid}.{_goes_on(found)}")
    if refused:
        return _explained(Reason.WORKLOAD_REFUSED, refused, found)
    if found.wanted == 0:
        return _at_zero(found)
    return _of_replicas(found, workload_refusal)


def _of_replicas(found: Situation, workload_refusal: str) -> Finding:
    replicas = found.of(found.target.number) if found.target is not None else ()
    ready = sum(1 for one in replicas if one.ready)
    if found.candidate is None and ready >= found.wanted:
        return _serving(found, len(replicas))
    if workload_refusal:
        return _explained(_refusal_reason(workload_refusal), workload_refusal, found)
    trouble = next((one.trouble for one in replicas if one.trouble is not None), None)
    if trouble is not None:
        trouble = _for_accelerators(trouble, found.has_accelerator)
        return _explained(trouble.reason, trouble.detail, found)
    return _on_the_way(found, ready, furthest(replicas))


def _serving(found: Situation, existing: int) -> Finding:
    if existing > found.wanted:
        return Finding(Reason.SCALING, f"{existing} replicas run, {found.wanted} are wanted; the others go.")
    noun = "replica answers" if found.wanted == 1 else "replicas answer"
    return Finding(Reason.SERVING, f"{found.wanted} of {found.wanted} {noun} requests.")


def _at_zero(found: Situation) -> Finding:
    if found.replicas:
        return Finding(Reason.SCALING, f"{len(found.replicas)} replicas run, none are wanted; they go.")
    explanation = Reason.SCALED_TO_ZERO.explanation.replace("NAME", found.owner.name)
    return Finding(Reason.SCALED_TO_ZERO, explanation)


def _on_the_way(found: Situation, ready: int, phase: Reason) -> Finding:
    counted = f"{ready} of {found.wanted} replicas answer requests"
    if found.candidate is not None and found.stable is not None:
        message = f"Revision {found.candidate.number}: {counted}; the next one is at {phase}.{_goes_on(found)}"
        return Finding(Reason.ROLLING_OUT, message)
    if ready:
        return Finding(Reason.SCALING, f"{counted}; the next one is at {phase}.")
    return Finding(phase, f"{counted}. {phase.explanation}")


def _explained(reason: Reason, detail: str, found: Situation) -> Finding:
    detail = detail.strip().rstrip(".")
    where = f"Revision {found.candidate.number}: " if found.candidate is not None and found.stable is not None else ""
    said = f"{detail}. " if detail else ""
    return Finding(reason, f"{where}{said}{reason.explanation}{_goes_on(found)}")


def _goes_on(found: Situation) -> str:
    """That the stable revision still serves, where it does while something else is the matter."""
    if found.stable is None or (found.candidate is None and found.invalid is None):
        return ""
    serving = sum(1 for one in found.of(found.stable.number) if one.ready)
    noun = "replica" if serving == 1 else "replicas"
    return f" Revision {found.stable.number} goes on serving with {serving} {noun}." if serving else ""


def _for_accelerators(trouble: Trouble, resource: str) -> Trouble:
    """A pod without a node for its accelerators waits for a GPU: a person does something else then than for memory."""
    if trouble.reason is not Reason.UNSCHEDULABLE or not resource:
        return trouble
    short = resource in trouble.detail or "node affinity" in trouble.detail
    return Trouble(Reason.WAITING_FOR_GPU, trouble.detail) if short else trouble


def _refusal_reason(words: str) -> Reason:
    """Quotas and limit ranges are a matter of amounts; other refusals are a policy of the cluster."""
    amounts = (
        "exceeded quota",
        "failed quota",
        "usage per Container",
        "usage per Pod",
        "must specify limits",
        "must specify requests",
    )
    return Reason.QUOTA_EXCEEDED if any(word in words for word in amounts) else Reason.WORKLOAD_REFUSED
