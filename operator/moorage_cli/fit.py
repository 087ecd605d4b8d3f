"""Whether nodes have room for what a rollout starts beside what runs already."""

from collections.abc import Iterable

from moorage_api.quantity import GIB
from moorage_operator.manifest import Manifest
from moorage_operator.plan.nodes import NAMED, Node, asked, lacking, misfit, room


def fit_lines(needed: int, spec: Manifest, nodes: Iterable[Node]) -> list[str]:
    """What is said about `needed` more pods of `spec` at once; affinity among pods and volumes are left aside."""
    if not needed:
        return ["no room is needed beside what runs already"]
    there = tuple(nodes)
    rooms = {node.name: room(node, spec) for node in there}
    fitting = sum(rooms.values())
    wanted = f"room for {needed} {'replica' if needed == 1 else 'replicas'} is needed at once"
    if fitting >= needed:
        having = [f"{name} has room for {count}" for name, count in _most(rooms) if count]
        return [f"it fits: {wanted}; {', '.join(having[:NAMED])}{_and_more(having)}"]
    lines = [f"it does not fit: {wanted}, and there is room for {fitting}"]
    short = [f"  {_why(node, spec, rooms[node.name])}" for node in there]
    if not there:
        return [*lines, "  there are no nodes; a cluster autoscaler would have to bring some"]
    return [*lines, *short[:NAMED], *([f"  {_and_more(short).strip()}"] if len(short) > NAMED else [])]


def _most(rooms: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(rooms.items(), key=lambda one: (-one[1], one[0]))


def _and_more(named: list[str]) -> str:
    return f" and {len(named) - NAMED} more nodes" if len(named) > NAMED else ""


def _why(node: Node, spec: Manifest, fitting: int) -> str:
    """What keeps a node from taking (more of) them."""
    never = misfit(node, spec)
    if never.startswith("its "):
        return f"{node.name}: {never} keep the replica away"
    if never:
        return f"{node.name}: has {amount(never, node.allocatable.get(never, 0))}, even empty; {_asks(spec, never)}"
    if fitting:
        return f"{node.name}: has room for {fitting}"
    short = lacking(node, spec)
    return f"{node.name}: has {amount(short, node.free.get(short, 0))} free; {_asks(spec, short)}"


def _asks(spec: Manifest, resource: str) -> str:
    return f"a replica asks for {amount(resource, asked(spec).get(resource, 1))}"


def amount(resource: str, value: object) -> str:
    """An amount as people read it."""
    number = max(0.0, float(str(value)))
    if resource in {"memory", "ephemeral-storage"}:
        return f"{number / GIB:.1f} GiB of {resource}"
    return f"{number:g} {resource}"
