"""The ControllerRevision that records what a replica of one revision is made of.

It holds the part of spec that makes a revision, and the pod template that was rendered from it when the revision was
made. The template is kept so that no upgrade of the operator, whatever it renders today, ever restarts a replica of
an older revision.
"""

from enum import StrEnum
from typing import Any, Final

from moorage_api import names
from moorage_operator.manifest import Manifest
from moorage_operator.render.context import Owner

ROLE_LABEL: Final = f"{names.GROUP}/role"
"""The record's label with its `Role`."""
ROLE_SINCE: Final = f"{names.GROUP}/role-since"
"""Annotation: when the role last changed. The newest `stable` counts; retired ones age by it."""


class Role(StrEnum):
    """What a revision is to its deployment."""

    STABLE = "stable"
    """It holds the traffic."""
    CANDIDATE = "candidate"
    """It is being rolled out; or it was, and what is ready of it is still needed."""
    RETIRED = "retired"
    """It takes no part any more."""


def record(owner: Owner, number: int, data: Manifest, role: Role, since: str) -> dict[str, Any]:
    """The record of revision `number` in `role` since `since` (RFC 3339). `data` never changes once it is written."""
    labels = {**owner.labels(number), ROLE_LABEL: role.value}
    metadata = owner.metadata(owner.revision_name(number), labels) | {"annotations": {ROLE_SINCE: since}}
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": metadata,
        "revision": number,
        "data": data,
    }
