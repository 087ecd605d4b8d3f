"""The revisions of a deployment, as three verbs need them: `history`, `diff` and `rollback`."""

import difflib
from typing import Any

import yaml

from moorage_cli.cluster import Cluster
from moorage_cli.errors import CommandError
from moorage_cli.paint import table
from moorage_operator.manifest import Manifest, controller_uid, uid_of
from moorage_operator.plan.revisions import Revision, recorded


def revisions_of(cluster: Cluster, deployment: Manifest) -> tuple[Revision, ...]:
    """Those that are remembered, by number, read as the operator reads them."""
    name, uid = deployment["metadata"]["name"], uid_of(deployment)
    records = [one for one in cluster.children(name, "controllerrevisions") if controller_uid(one) == uid]
    return recorded(records)


def numbered(revisions: tuple[Revision, ...], number: int) -> Revision:
    """The revision `number`.

    Raises:
        CommandError: it is not remembered.
    """
    found = next((one for one in revisions if one.number == number), None)
    if found is None:
        known = ", ".join(str(one.number) for one in revisions) or "none"
        raise CommandError(f"revision {number} is not remembered; there are {known}")
    return found


def history(revisions: tuple[Revision, ...]) -> list[str]:
    """A table, newest number first."""
    rows = [("REVISION", "ROLE", "CREATED", "LAST PROMOTED", "MODEL", "IMAGE", "WHY")]
    for one in reversed(revisions):
        created, stands = f"{one.created:%Y-%m-%dT%H:%M:%SZ}", one.standing
        promoted = f"{stands.promoted[:19]}Z" if stands.promoted else "-"  # without fractions of a second
        why = f"{stands.reason}: {stands.message}" if stands.reason else ""
        rows.append((str(one.number), stands.role, created, promoted, one.source, one.image or "-", why))
    return table(rows)


def difference(before: Revision, after: Revision) -> list[str]:
    """A unified diff of what the two are made of: the part of spec that makes a revision, and the pinned source."""
    old, new = (_makings(one) for one in (before, after))
    names = (f"revision {before.number} ({before.role})", f"revision {after.number} ({after.role})")
    return list(difflib.unified_diff(old, new, *names, lineterm="", n=3))


def _makings(revision: Revision) -> list[str]:
    made_of: dict[str, Any] = {key: value for key, value in revision.data.items() if key != "template"}
    made_of["image"] = revision.image
    return yaml.safe_dump(made_of, sort_keys=True).splitlines()
