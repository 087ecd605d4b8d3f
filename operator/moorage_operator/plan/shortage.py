"""What is said of a replica that waits for accelerators: how many it needs, and who has how many of them free."""

from moorage_operator.manifest import Manifest
from moorage_operator.plan.accelerators import Accelerators
from moorage_operator.plan.nodes import NAMED, Node, Nodes, misfit


def needs(spec: Manifest, given: Accelerators, nodes: Nodes | None) -> str:
    """A sentence; nothing while nodes have not been listed.

    Args:
        spec: the pod that has no node.
        given: what it is to be given.
        nodes: all of them; None when nobody knows yet.
    """
    if nodes is None:
        return ""
    resource = given.resource
    wanted = f"Needs {given.count} x {resource}{' on one node' if given.count > 1 else ''}"
    if nodes.unknown:
        return f"{wanted}; {nodes.unknown}"
    fit = [one for one in nodes.there if not misfit(one, spec)]
    if not fit:
        return f"{wanted}; {_none(nodes.there, resource)}"
    fit.sort(key=lambda one: (-one.free.get(resource, 0), one.name))
    told = ", ".join(_free(one, resource) for one in fit[:NAMED])
    rest = len(fit) - NAMED
    return f"{wanted}; {told}{f', {rest} more have no more' if rest > 0 else ''}"


def _free(node: Node, resource: str) -> str:
    product = f" ({node.product})" if node.product else ""
    free, all_of_them = (int(of.get(resource, 0)) for of in (node.free, node.allocatable))
    return f"{node.name}{product} has {max(0, free)} of {all_of_them} free"


def _none(there: tuple[Node, ...], resource: str) -> str:
    """That no node would do even if it were empty, and what there is instead."""
    having = [one for one in there if one.allocatable.get(resource, 0)]
    if not having:
        return f"no node offers {resource}"
    kinds = sorted({one.product or "unlabelled ones" for one in having})
    return f"no node would do; there are {', '.join(kinds)} on {len(having)} {'node' if len(having) == 1 else 'nodes'}"
