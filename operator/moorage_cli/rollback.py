"""`moor rollback`: serve an earlier revision. The only verb that writes spec, so it asks who else does."""

import argparse
import json
from typing import TYPE_CHECKING, Final

from moorage_cli.cluster import LLMDEPLOYMENTS, Cluster
from moorage_cli.errors import CommandError
from moorage_cli.revisions import numbered, revisions_of
from moorage_cli.verbs import add_verb
from moorage_operator.manifest import Manifest, dig
from moorage_operator.plan.revisions import Revision

if TYPE_CHECKING:
    from moorage_cli.verbs import Verbs

_DESCRIPTION: Final = """\
Serve an earlier revision: writes spec.rollbackTo. It counts until it is taken away (--undo), whatever the rest of spec
says. To give a rollout up that is under way, `moor rollout abort` is enough and writes no spec.
"""
_TRACKED: Final = ("argocd.argoproj.io/tracking-id", "argocd.argoproj.io/instance")
"""What Argo CD puts on the objects of an Application, depending on its tracking method; see also `_MANAGERS`."""
_MANAGERS: Final = frozenset({"argocd-controller", "argocd-application-controller"})
"""Field managers by which it writes, which tell also with its oldest way of tracking, a label that Helm shares."""


def add_to(verbs: "Verbs") -> None:
    """Declare the verb."""
    parser = add_verb(verbs, "rollback", "serve an earlier revision (writes spec.rollbackTo)", _DESCRIPTION)
    parser.add_argument("name", metavar="NAME", help="of the LLMDeployment")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--to", type=int, metavar="N", help="default: the one that was stable before this one")
    which.add_argument("--undo", action="store_true", help="take spec.rollbackTo away: serve what spec says again")
    parser.add_argument("--force", action="store_true", help="also where Argo CD tracks the object")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write spec.rollbackTo, or take it away."""
    cluster = Cluster.of(options)
    deployment = cluster.deployment(options.name)
    if tracked_by_argo_cd(deployment) and not options.force:
        raise CommandError(
            f"Argo CD tracks {options.name}, and the cluster would serve something else than Git says; revert in "
            "Git, or set spec.rollbackTo there; --force writes it all the same"
        )
    target = None
    if not options.undo:
        revisions = revisions_of(cluster, deployment)
        stable = dig(deployment, "status", "revision", "stable")
        target = options.to or previous(revisions, stable)
        numbered(revisions, target)
    rollback_to = None if target is None else {"revision": target}
    patch = json.dumps({"spec": {"rollbackTo": rollback_to}})
    cluster.run("patch", LLMDEPLOYMENTS, options.name, "--type=merge", f"--patch={patch}", "--field-manager=moor")
    said = "spec.rollbackTo is gone" if target is None else f"goes back to revision {target}"
    print(f"{options.name}: {said}; `moor rollout status {options.name}` shows how it goes")
    return 0


def previous(revisions: tuple[Revision, ...], stable: int | None) -> int:
    """The revision that was promoted last before the stable one.

    Raises:
        CommandError: no other ever served.
    """
    served = [one for one in revisions if one.standing.promoted and one.number != stable]
    if not served:
        raise CommandError("no other revision has served before; name one with --to (`moor history` lists them)")
    return max(served, key=lambda one: (one.standing.promoted, one.number)).number


def tracked_by_argo_cd(deployment: Manifest) -> bool:
    """Whether Argo CD keeps the object as Git has it."""
    metadata = deployment["metadata"]
    marks = {**dig(metadata, "annotations", default={}), **dig(metadata, "labels", default={})}
    managers = {entry.get("manager") for entry in metadata.get("managedFields", ())}
    return any(mark in marks for mark in _TRACKED) or bool(managers & _MANAGERS)
