"""What `moor plan` says of spec.autoscaling: between which numbers, by what, and how far its budget goes."""

from collections.abc import Iterator

from moorage_api.autoscaling import Autoscaling
from moorage_api.llmdeployment import Spec
from moorage_api.reading import parse
from moorage_operator.manifest import Manifest
from moorage_operator.plan import capacity


def scaling_lines(manifest: Manifest) -> list[str]:
    """A line or some; nothing without spec.autoscaling."""
    spec = parse(manifest).deployment.spec
    if spec.autoscaling is None:
        return []
    said = (*_between(spec.autoscaling), *_budget(spec, spec.autoscaling))
    return [f"  {'' if index else 'scaling':<7} {line}" for index, line in enumerate(said)]


def most_replicas(spec: Spec) -> int:
    """How many an autoscaler may come to; 0 without one."""
    wish = spec.autoscaling
    return 0 if wish is None else min(wish.max_replicas, _within_budget(spec, wish) or wish.max_replicas)


def without_room(spec: Spec, replicas: int) -> str:
    """What a rollout of so many does that finds no room beside them.

    Explicit values are obeyed, and the only replica is never taken away.
    """
    if spec.rollout.strategy != "RollingUpdate":
        return "it waits"
    room = capacity.budget(spec.rollout, replicas, drains=False)
    ours = capacity.is_auto(spec.rollout, spec.rollout.strategy)
    gives_way = (ours and capacity.may_drain(replicas, replicas)) or room.unavailable > 0
    return "it takes one away for each new one" if gives_way else "it waits; maxUnavailable: 1 would let it replace one"


def _within_budget(spec: Spec, wish: Autoscaling) -> int | None:
    """How many replicas the budget is, but always one; None: no bound."""
    if wish.budget is None or spec.accelerator is None:
        return None
    return max(1, wish.budget.accelerators // (spec.accelerator.count * spec.sharding.pods))


def _between(wish: Autoscaling) -> Iterator[str]:
    targets = ", ".join(f"{one.metric} {one.average_value}" for one in wish.targets)
    yield f"between {wish.min_replicas} and {wish.max_replicas} replicas by {targets} per replica"
    if wish.idle_after is not None:
        yield f"to zero after {wish.idle_after} without a request; the next one waits for a replica to start"


def _budget(spec: Spec, wish: Autoscaling) -> Iterator[str]:
    """How many replicas the budget allows, and whether a rollout finds room beside them."""
    most = _within_budget(spec, wish)
    if most is None or wish.budget is None or spec.accelerator is None:
        return
    limit, each = wish.budget.accelerators, spec.accelerator.count * spec.sharding.pods
    whole = f"the budget of {limit} x {spec.accelerator.resource} is {most} {_plural(most)} of {each}"
    yield f"{whole}{_cut(most, wish.max_replicas)}"
    beside = min(most, wish.max_replicas)
    if spec.rollout.strategy != "RollingUpdate":
        if 2 * beside * each > limit:
            need = f"a {spec.rollout.strategy} from {beside} {_plural(beside)} needs {2 * beside * each}"
            yield f"{need}: it waits until fewer serve"
    elif (beside + 1) * each > limit:
        yield f"a rollout from {beside} {_plural(beside)} finds no room beside them: {without_room(spec, beside)}"


def _cut(most: int, wanted: int) -> str:
    return f"; of maxReplicas {wanted} the rest is cut" if wanted > most else ""


def _plural(count: int) -> str:
    return "replica" if count == 1 else "replicas"
