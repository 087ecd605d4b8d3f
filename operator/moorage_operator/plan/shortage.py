"""What is said of a replica that waits for accelerators: how many it needs, and who has how many of them free."""

from typing import Final

from moorage_operator.manifest import Manifest
from moorage_operator.plan.nodes import Node, Nodes, asked, misfit

_NAMED: Final = 4
"""Nodes that a message names: those with the most free ones."""


def needs(spec: Manifest, resource: str, nodes: Nodes | None) -> str:
    """A sentence; nothing while nodes have not been listed.

    Args:
        spec: the pod that has no node.
        resource: of its accelerators.
        nodes: all of them; None when nobody knows yet.
    """
    if nodes is None:
        return ""
    count = int(asked(spec).get(resource, 0))
    wanted = f"Needs {count} x {resource}{' on one node' if count > 1 else ''}"
    if nodes.unknown:
        return f"{wanted}; {nodes.unknown}"
    fit = sorted((one for one in nodes.there if not misfit(one, spec)), key=lambda one: (-one.free[resource], one.name))
    if not fit:
        return f"{wanted}; {_none(nodes.there, resource)}"
    told = ", ".join(_free(one, resource) for one in fit[:_NAMED])
    rest = len(fit) - _NAMED
    return f"{wanted}; {told}{f', {rest} more have no more' if rest > 0 else ''}"


def _free(node: Node, resource: str) -> str:
    product = f" ({node.product})" if node.product else ""
    return f"{node.name}{product} has {max(0, int(node.free[resource]))} of {int(node.allocatable[resource])} free"


def _none(there: tuple[Node, ...], resource: str) -> str:
    """That no node would do even if it were empty, and what there is instead."""
    having = [one for one in there if one.allocatable.get(resource, 0)]
    if not having:
        return f"no node offers {resource}"
    kinds = sorted({one.product or "unlabelled ones" for one in having})
    return f"no node would do; there are {', '.join(kinds)} on {len(having)} {'node' if len(having) == 1 else 'nodes'}"
