"""spec.podTemplate merged into a rendered pod: what the user adds, beside what the operator needs.

Maps are merged by key and ours win; the node affinity of accelerators holds besides the user's; lists of tolerations
are put together; what else the user names replaces our choice.
"""

from typing import Any, Final

from moorage_api.pod_template import PodSpec, PodTemplate
from moorage_operator.manifest import MAPS, Manifest, dig

_PLAIN: Final = (
    "nodeSelector",
    "priorityClassName",
    "schedulerName",
    "runtimeClassName",
    "imagePullSecrets",
    "terminationGracePeriodSeconds",
)
_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"


def merged(pod: Manifest, added: PodTemplate | None) -> dict[str, Any]:
    """The pod template with what spec adds."""
    if added is None:
        return dict(pod)
    metadata = added.metadata.to_api() if added.metadata is not None else {}
    ours = pod["metadata"]
    both = {kind: {**metadata.get(kind, {}), **ours.get(kind, {})} for kind in ("labels", "annotations")}
    return {
        **pod,
        "metadata": {**ours, **{kind: words for kind, words in both.items() if words}},
        "spec": _spec(pod, added.spec) if added.spec is not None else pod["spec"],
    }


def _spec(pod: Manifest, added: PodSpec) -> dict[str, Any]:
    ours, theirs = dict(pod["spec"]), added.to_api()
    ours |= {name: theirs[name] for name in _PLAIN if theirs.get(name)}
    tolerations = [*ours.get("tolerations", ()), *theirs.get("tolerations", ())]
    if tolerations:
        ours["tolerations"] = tolerations
    if affinity := _affinity(ours.get("affinity", {}), theirs.get("affinity", {})):
        ours["affinity"] = affinity
    if spread := theirs.get("topologySpreadConstraints"):
        selector = ours["topologySpreadConstraints"][0]["labelSelector"]
        ours["topologySpreadConstraints"] = [{"labelSelector": selector, **one} for one in spread]
    return ours


def _affinity(ours: Manifest, theirs: Manifest) -> dict[str, Any]:
    """Theirs; where both want something of nodes, each of their alternatives gets our terms as well.

    What has not the form of a pod's stays as it is: the API server will say what is wrong with it.
    """
    wanted = dig(ours, "nodeAffinity", _REQUIRED, "nodeSelectorTerms", default=())
    if not wanted:
        return {**ours, **theirs}
    node = theirs.get("nodeAffinity") or {}
    alternatives = dig(node, _REQUIRED, "nodeSelectorTerms", default=({},))
    if not isinstance(node, MAPS) or not isinstance(alternatives, list | tuple):
        return dict(theirs)
    terms = [_both(one, wanted[0]["matchExpressions"]) for one in alternatives]
    return {**theirs, "nodeAffinity": {**node, _REQUIRED: {"nodeSelectorTerms": terms}}}


def _both(term: Any, expressions: list[Manifest]) -> Any:
    theirs = dig(term, "matchExpressions", default=())
    if not isinstance(term, MAPS) or not isinstance(theirs, list | tuple):
        return term
    return {**term, "matchExpressions": [*theirs, *expressions]}
