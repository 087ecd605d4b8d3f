"""What is said of a replica that waits for accelerators: how many it needs, and who has how many of them free."""

from moorage_operator.manifest import Manifest
from moorage_operator.plan.accelerators import Accelerators
from moorage_operator.plan.nodes import NAMED, Node, Nodes, misfit
from moorage_operator.render.sharding import pods_of


def needs(template: Manifest, given: Accelerators, nodes: Nodes | None) -> str:
    """A sentence; nothing while nodes have not been listed.

    Args:
        template: of the pods of the replica that has no node.
        given: what each of them is to be given.
        nodes: all of them; None when nobody knows yet.
    """
    if nodes is None:
        return ""
    spec, pods, resource = template["spec"], pods_of(template), given.resource
    wanted = f"Needs {given.count} x {resource}{' on one node' if given.count > 1 else ''}"
    if pods > 1:
        wanted += f" for each of {pods} pods"
    if nodes.unknown:
        return f"{wanted}; {nodes.unknown}"
    fit = [one for one in nodes.there if not misfit(one, spec)]
    if not fit:
        return f"{wanted}; {_none(nodes.there, spec, resource)}"
    fit.sort(key=lambda one: (-one.free.get(resource, 0), one.name))
    return f"{wanted}; {_listed([_free(one, resource) for one in fit], 'have no more')}"


def _listed(told: list[str], rest: str) -> str:
    """The first few, and how many more there are, of which `rest` is so."""
    more = len(told) - NAMED
    return f"{', '.join(told[:NAMED])}{f', {more} more {rest}' if more > 0 else ''}"


def _free(node: Node, resource: str) -> str:
    free, all_of_them = (int(of.get(resource, 0)) for of in (node.free, node.allocatable))
    return f"{_called(node)} has {max(0, free)} of {all_of_them} free"


def _called(node: Node) -> str:
    return f"{node.name} ({node.product})" if node.product else node.name


def _none(there: tuple[Node, ...], spec: Manifest, resource: str) -> str:
    """That no node would do even if it were empty, and why none of those that have such a resource does."""
    having = [one for one in there if one.allocatable.get(resource, 0)]
    if not having:
        return f"no node offers {resource}"
    return f"no node would do: {_listed([_unfit(one, spec, resource) for one in having], 'would not either')}"


def _unfit(node: Node, spec: Manifest, resource: str) -> str:
    why = misfit(node, spec)
    if why == resource:
        return f"{_called(node)} has {int(node.allocatable[resource])} in all"
    return f"{_called(node)} {'has too little ' if not why.startswith('its ') else 'is ruled out by '}{why}"
