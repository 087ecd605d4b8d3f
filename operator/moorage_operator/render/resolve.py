"""The pod that looks up, once for a revision, what a movable source is at this moment.

Movable are a branch or a tag of a hub, a Python package without a version, and whatever lies on a claim. It is a
short-lived pod with the image, the credentials and the claim of the fetch container. Its termination message says
`{"source", "digest", "bytes"}`: the source with a commit in place of the branch or with the package's version, the
digest of the files where it could read them, and their size.
"""

import hashlib
import json
import re
from typing import Any, Final

from moorage_api import names
from moorage_api.llmdeployment import Spec
from moorage_api.pod_template import PodTemplate
from moorage_api.source import ClaimSource, HubSource, PythonSource, parse_source
from moorage_operator.manifest import Manifest, dig
from moorage_operator.render import accelerator
from moorage_operator.render.additions import merged
from moorage_operator.render.context import Context, Owner
from moorage_operator.render.pod import POD_SECURITY, TEMPORARY_LIMIT, claim_mounts, claim_volumes, fetch_container

PURPOSE: Final = "resolve"
ASKED: Final = f"{names.GROUP}/asked"
"""Annotation: a hash of what the pod looks up, so that an edit meanwhile is noticed."""
_RESOURCES: Final = {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}
_COMMIT: Final = re.compile("[0-9a-f]{40}")


def movable(spec: Spec) -> bool:
    """Whether what the source names may be other files tomorrow. A digest pins them, whatever they are."""
    if spec.model.digest is not None:
        return False
    match parse_source(spec.model.source):
        case HubSource(revision=revision):
            return revision is None or _COMMIT.fullmatch(revision) is None
        case PythonSource(version=version):
            return version is None
        case ClaimSource():
            return True


def question(spec: Spec, context: Context) -> str:
    """A hash of everything that the answer depends on, and whether there is one: a pod without a node asks nobody."""
    credentials = spec.model.credentials.to_api() if spec.model.credentials else None
    env = [[one.name, one.value] for one in spec.engine.env]
    added = _placement(spec.pod_template)
    placed = [added.to_api() if added is not None else None, _reach(spec)]
    asked = [spec.model.source, credentials, env, spec.engine.image or context.runtime_image, placed]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


def asks(pod: Manifest) -> str:
    """What a pod was made to look up."""
    return str(dig(pod, "metadata", "annotations", ASKED, default=""))


def resolve_pod(owner: Owner, number: int, spec: Spec, context: Context) -> dict[str, Any]:
    """The pod that answers for revision `number`."""
    labels = {**owner.labels(number), names.PURPOSE_LABEL: PURPOSE}
    image = spec.engine.image or context.runtime_image
    container = fetch_container(spec, image, ["moorage-fetch", "resolve", spec.model.source])
    container |= {"resources": _RESOURCES}
    container["volumeMounts"] = [*container["volumeMounts"], *claim_mounts(spec)]
    temporary = {"name": "tmp", "emptyDir": {"sizeLimit": TEMPORARY_LIMIT}}
    metadata = owner.metadata(f"{owner.revision_name(number)}-resolve", labels)
    pod = {
        "metadata": metadata | {"annotations": {ASKED: question(spec, context)}},
        "spec": {
            **POD_SECURITY,
            # A hub that is away for a moment is asked again.
            "restartPolicy": "OnFailure",
            "containers": [container],
            "volumes": [temporary, *claim_volumes(spec)],
            **_reach(spec),
        },
    }
    return {"apiVersion": "v1", "kind": "Pod", **merged(pod, _placement(spec.pod_template))}


def _reach(spec: Spec) -> dict[str, Any]:
    """Where a claim may lead: to a disk of the nodes that have the accelerators, which keep other pods away."""
    placed = accelerator.placement(spec.accelerator) if claim_volumes(spec) else {}
    return {name: value for name, value in placed.items() if name == "tolerations"}


def _placement(added: PodTemplate | None) -> PodTemplate | None:
    """What a pod of the namespace may need to start at all; it has no replicas to keep apart, and answers nobody."""
    if added is None or added.spec is None:
        return added
    kept = {"topology_spread_constraints": (), "termination_grace_period_seconds": None}
    return added.model_copy(update={"spec": added.spec.model_copy(update=kept)})
