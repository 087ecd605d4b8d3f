"""The ControllerRevision that records what a replica of one revision is made of.

It holds the part of spec that makes a revision, and the pod template that was rendered from it when the revision was
made. The template is kept so that no upgrade of the operator, whatever it renders today, ever restarts a replica of
an older revision.
"""

from typing import Any, Final

from moorage_api import names
from moorage_operator.manifest import Manifest
from moorage_operator.render.context import Owner

ROLE_SINCE: Final = f"{names.GROUP}/role-since"
"""Annotation: when the role last changed. The newest `stable` counts; retired ones age by it."""


def record(owner: Owner, number: int, data: Manifest, role: str, since: str) -> dict[str, Any]:
    """The record of revision `number` in `role` since `since` (RFC 3339). `data` never changes once it is written."""
    labels = {**owner.labels(number), names.ROLE_LABEL: role}
    metadata = owner.metadata(owner.revision_name(number), labels) | {"annotations": {ROLE_SINCE: since}}
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": metadata,
        "revision": number,
        "data": data,
    }
