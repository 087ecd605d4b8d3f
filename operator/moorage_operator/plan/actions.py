"""The annotation `moorage.dev/action: VERB/rN[/NONCE]`: what a person wants done with one revision, once.

What was done is written on that revision's record, together with its effect, so that neither a death of the operator
nor a lost status makes it happen twice or not at all. The same words with another nonce are another action.
"""

import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from moorage_api import names
from moorage_api.conditions import Reason
from moorage_operator.manifest import Manifest, dig
from moorage_operator.plan.times import as_text
from moorage_operator.render.record import Role, Standing

VERBS: Final = ("promote", "abort", "pause", "resume", "retry", "restart")
_FORM: Final = re.compile(rf"({'|'.join(VERBS)})/r([1-9][0-9]{{0,8}})(?:/[A-Za-z0-9._-]{{1,64}})?")
_STEERING: Final = {"pause": "paused", "resume": "", "promote": "promote"}
_STEERING_BACK: Final = {"pause": "back-paused", "resume": "back"}
"""Where nothing has to be proven there is nothing to skip, and a pause makes no trial of it."""


@dataclass(frozen=True)
class Action:
    """A wish that can be understood."""

    text: str
    verb: str
    number: int


def wish(deployment: Manifest) -> tuple[Action | None, str]:
    """The action on the object, and what is wrong with it (empty when nothing is)."""
    text = str(dig(deployment, "metadata", "annotations", names.ACTION_ANNOTATION, default=""))
    if not text:
        return None, ""
    match = _FORM.fullmatch(text)
    if match is None:
        form = f"write {'|'.join(VERBS)}, then /rN with the number of a revision, and /NONCE to repeat it"
        return None, f"The annotation {names.ACTION_ANNOTATION} is not understood; {form}."
    return Action(text, match[1], int(match[2])), ""


def done(action: Action, standing: Standing, now: datetime, *, under_way: bool) -> Standing:
    """The standing of the action's revision once it is done; the same where it was done before.

    Args:
        action: what is wanted of this revision.
        standing: as the record says.
        now: the time.
        under_way: whether this revision is being rolled out.
    """
    if standing.acted == action.text:
        return standing
    standing = replace(standing, acted=action.text)
    if action.verb == "restart":
        return replace(standing, restarted=as_text(now))
    if action.verb == "retry" and standing.role is Role.FAILED:
        return afresh(standing, now)
    return _steered(action.verb, standing, now) if under_way else standing


def _steered(verb: str, standing: Standing, now: datetime) -> Standing:
    """What a person says about a rollout that is under way."""
    if verb == "abort":
        return given_up(standing, Reason.ABORTED, "A person aborted the rollout", now)
    steering = _STEERING_BACK if standing.goes_back else _STEERING
    return replace(standing, steering=steering.get(verb, standing.steering))


def afresh(standing: Standing, now: datetime, steering: str = "") -> Standing:
    """A candidate at the beginning of its rollout."""
    role, since = Role.CANDIDATE, as_text(now)
    made = replace(standing, role=role, since=since, steering=steering)
    return replace(made, reason="", message="", asleep="", woken="", drains=False)


def given_up(standing: Standing, reason: str, message: str, now: datetime) -> Standing:
    """A candidate that is not tried again until spec changes or a person says so."""
    return replace(standing, role=Role.FAILED, since=as_text(now), reason=reason, message=message, steering="")
