"""What replicas would take: memory of the model, room on nodes, money."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml

from moorage_api import names
from moorage_api.advice import advice
from moorage_api.quantity import GIB, quantity_value
from moorage_api.reading import parse
from moorage_cli.cluster import Cluster, KubectlError
from moorage_cli.errors import CommandError
from moorage_cli.estimate import Shape, memory_lines
from moorage_cli.fit import fit_lines
from moorage_cli.prices import CONFIG_MAP, KEY, Prices, cost, cost_line, read_prices
from moorage_cli.scaling import most_replicas, without_room
from moorage_operator.manifest import WORKLOADS, Manifest, dig, kind_of
from moorage_operator.plan.nodes import PLACED, Node, misfit, nodes, used
from moorage_operator.render.workload import template_of

if TYPE_CHECKING:
    from moorage_api.llmdeployment import Accelerator, Spec
    from moorage_cli.rehearsal import Rehearsed

_PLACED: Final = f"--field-selector={PLACED}"


@dataclass(frozen=True)
class Surroundings:
    """What a manifest is measured by; None: not known, and nothing is said about it."""

    nodes: tuple[Node, ...] | None = None
    unknown: str = ""
    """Why nodes are not known."""
    prices: Prices | None = None
    shape: Shape | None = None
    """Of the model."""


def surroundings(cluster: Cluster | None, prices: Prices | None, shape: Shape | None) -> Surroundings:
    """Look around; without a cluster only what a person gave is known."""
    if cluster is None:
        return Surroundings(prices=prices, shape=shape)
    prices = prices or _installed_prices(cluster)
    try:
        listed = cluster.read("get", "nodes")["items"]
        pods = cluster.read("get", "pods", "--all-namespaces", _PLACED)["items"]
    except KubectlError as error:
        return Surroundings(unknown=str(error), prices=prices, shape=shape)
    return Surroundings(nodes(listed, used(pods)), prices=prices, shape=shape)


def footprint_lines(before: Manifest | None, after: Manifest, rollout: "Rehearsed", around: Surroundings) -> list[str]:
    """All that is known, a line or some for each; nothing where no workload would change."""
    kept = (one.manifest for one in rollout.writes if one.verb != "delete")
    workloads = [manifest for manifest in kept if kind_of(manifest) in WORKLOADS]
    deployment = parse(after).deployment
    if not workloads or not deployment.spec.replicas:
        return []
    template, spec = template_of(workloads[-1]), deployment.spec
    runs = sum(row["replicas"] for row in dig(before, "status", "revisions", default=()))
    at_most = max((sum(one.replicas for one in moment.shares) for moment in rollout.moments), default=spec.replicas)
    return [
        *_titled("memory", _memory(spec, template["spec"], around)),
        *_titled("nodes", _places(spec, at_most, runs, template, around)),
        *_titled("cost", _money(spec, template, at_most, around)),
        *_titled("idle", [said] if (said := advice(spec)) else []),
    ]


def _titled(title: str, said: Sequence[str]) -> Iterator[str]:
    for index, line in enumerate(said):
        yield f"  {title if index == 0 else '':<7} {line}"


def _memory(spec: "Spec", pod: Manifest, around: Surroundings) -> list[str]:
    if around.shape is None:
        return []
    return memory_lines(around.shape, spec, _memory_of_a_replica(spec, pod, around))


def _memory_of_a_replica(spec: "Spec", pod: Manifest, around: Surroundings) -> float | None:
    """GiB of one accelerator, of the smallest that it might be; without accelerators of the container."""
    if spec.accelerator is not None:
        there = [one.device_memory for one in around.nodes or () if one.device_memory and not misfit(one, pod)]
        if there:
            return min(there) / 1024
        smallest = spec.accelerator.min_memory
        return None if smallest is None else float(quantity_value(smallest)) / GIB
    limit = spec.resources.limits.memory if spec.resources is not None and spec.resources.limits is not None else None
    return None if limit is None else float(quantity_value(limit)) / GIB


def _places(spec: "Spec", at_most: int, runs: int, template: Manifest, around: Surroundings) -> list[str]:
    """Whether there is room for the rollout; and where there is, for as many as an autoscaler may come to."""
    lines = _room(spec, max(0, at_most - runs), template, around, rolls=runs >= spec.replicas)
    most = most_replicas(spec)
    if around.nodes is None or most <= at_most or lines[0].startswith("it does not fit"):
        return lines
    first, *more = fit_lines(max(0, most - runs), template, around.nodes)
    return [*lines, f"scaled out to {most}, {first}", *more]


def _room(spec: "Spec", needed: int, template: Manifest, around: Surroundings, *, rolls: bool) -> list[str]:
    """Whether nodes have it; where not, what a rollout does: `rolls`, as many as are wanted run already."""
    if around.unknown:
        return [f"whether it fits is not known: {around.unknown}"]
    if around.nodes is None:
        return []
    lines = fit_lines(needed, template, around.nodes)
    if not rolls or not lines[0].startswith("it does not fit"):
        return lines
    return [*lines, f"a rollout that finds no room: {without_room(spec, spec.replicas)}"]


def _money(spec: "Spec", template: Manifest, at_most: int, around: Surroundings) -> list[str]:
    if around.prices is None:
        return []
    one = cost(template, _products(spec.accelerator), around.prices)
    lines = [cost_line(one, spec.replicas, at_most, around.prices)]
    most = most_replicas(spec)
    return [*lines, f"scaled out {cost_line(one, most, most, around.prices)}"] if most > spec.replicas else lines


def _products(accelerator: "Accelerator | None") -> tuple[str, ...]:
    return () if accelerator is None else accelerator.products


def _installed_prices(cluster: Cluster) -> Prices | None:
    """The price map of the installation; None without one, or where it may not be read."""
    selector = f"--selector={names.NAME_LABEL}={CONFIG_MAP}"
    try:
        found: list[dict[str, Any]] = cluster.read("get", "configmaps", "--all-namespaces", selector)["items"]
    except KubectlError:
        return None
    text = next((dig(one, "data", KEY) for one in found), None)
    return None if text is None else prices_from(str(text), f"ConfigMap {CONFIG_MAP}")


def prices_from(text: str, where: str) -> Prices:
    """A price map from its text.

    Raises:
        CommandError: it is none.
    """
    try:
        return read_prices(yaml.safe_load(text), where)
    except yaml.YAMLError as error:
        raise CommandError(f"{where}: {' '.join(str(error).split())}") from error
