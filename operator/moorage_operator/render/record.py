"""The ControllerRevision that records what a replica of one revision is made of.

It holds the part of spec that makes a revision, and the pod template that was rendered from it when the revision was
made. The template is kept so that no upgrade of the operator, whatever it renders today, ever restarts a replica of
an older revision.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from moorage_api import names
from moorage_operator.manifest import Manifest, dig, label_of
from moorage_operator.render.context import Owner

ROLE_LABEL: Final = f"{names.GROUP}/role"
"""The record's label with its `Role`."""


class Role(StrEnum):
    """What a revision is to its deployment."""

    STABLE = "stable"
    """It holds the traffic."""
    CANDIDATE = "candidate"
    """It is being rolled out; or it was, and what is ready of it is still needed."""
    WARM = "warm"
    """It was stable, and some replicas are kept without requests, so that going back takes seconds."""
    RETIRED = "retired"
    """It takes no part any more."""
    FAILED = "failed"
    """It was given up, and is what spec asks for: it is not tried again until spec changes, or a person says so."""


@dataclass(frozen=True)
class Standing:
    """What a record says about its revision besides what it is made of: everything that must survive a lost status."""

    role: Role
    since: str
    """When it got its role (RFC 3339). The newest `stable` counts; retired and warm ones age by it."""
    promoted: str = ""
    """When it last became stable (RFC 3339); empty for never. History is ordered by it."""
    reason: str = ""
    """Why it was given up, in one word; kept in history until it is tried again."""
    message: str = ""
    """The same for people."""
    acted: str = ""
    """The last value of the action annotation that was acted upon for this revision."""
    steering: str = ""
    """What a person last said about its rollout: `paused`, `promote`, or nothing; `back` and `back-paused` where a
    revision that has served before is gone back to. Of a stable one how it became so; `alone`: while nobody asked."""
    restarted: str = ""
    """The last restart that a person asked for; a part of its pods' annotations."""
    asleep: str = ""
    """When the deployment went to zero with this revision as the stable one (RFC 3339); empty while it does not sleep.
    A candidate that is younger has to prove itself; one that is older had begun to, and goes on at the next request."""
    woken: str = ""
    """When a request, or the proof of a revision at zero, last ended that (RFC 3339). What an autoscaler has written
    before it was for the load of then."""
    drains: bool = False
    """Its replicas found no room beside those of the stable revision, which gives up one for each."""

    @property
    def goes_back(self) -> bool:
        """Whether it is rolled out to go back to it, so that nothing has to be proven."""
        return self.steering in {"back", "back-paused"}

    @property
    def paused(self) -> bool:
        """Whether a person stopped its rollout."""
        return self.steering in {"paused", "back-paused"}

    def annotations(self) -> dict[str, str]:
        """As the record carries them."""
        written = {field: getattr(self, field) for field in _TEXTS}
        found = {f"{names.GROUP}/{key}": written[field] for field, key in _TEXTS.items() if written[field]}
        return found | ({DRAINS: "true"} if self.drains else {})

    @classmethod
    def of(cls, record: Manifest) -> "Standing":
        """As a live record says it, or what is left of it after a restore, or after somebody's edit.

        One that lost its label is neither stable nor told to go; one that lost its time counts from when it was made.
        """
        label = label_of(record, ROLE_LABEL)
        said = dig(record, "metadata", "annotations", default={})
        texts = {field: str(said.get(f"{names.GROUP}/{key}", "")) for field, key in _TEXTS.items()}
        texts["since"] = _moment(texts["since"]) or str(dig(record, "metadata", "creationTimestamp", default=""))
        texts |= {field: _moment(texts[field]) for field in ("promoted", "asleep", "woken")}
        role = next((role for role in Role if role == label), Role.CANDIDATE)
        return cls(role=role, drains=said.get(DRAINS) == "true", **texts)


def _moment(text: str) -> str:
    """The text, where it is a moment (RFC 3339); nothing otherwise."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return ""
    return "" if moment.tzinfo is None else text


_TEXTS: Final = {
    "since": "role-since",
    "promoted": "promoted",
    "reason": "reason",
    "message": "message",
    "acted": "acted",
    "steering": "steering",
    "restarted": "restarted",
    "asleep": "asleep",
    "woken": "woken",
}
"""Field of `Standing` -> its annotation, below our group."""
DRAINS: Final = f"{names.GROUP}/drains"


def record(owner: Owner, number: int, data: Manifest, standing: Standing) -> dict[str, Any]:
    """The record of revision `number`. `data` never changes once it is written."""
    labels = {**owner.labels(number), ROLE_LABEL: standing.role.value}
    metadata = owner.metadata(owner.revision_name(number), labels) | {"annotations": standing.annotations()}
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": metadata,
        "revision": number,
        "data": data,
    }
