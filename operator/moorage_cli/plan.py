"""`moor plan`: what would come of a manifest, before it is applied; by the operator's own pure functions."""

import argparse
import difflib
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from moorage_api import names
from moorage_api.reading import InvalidObjectError, parse
from moorage_cli.cluster import LLMDEPLOYMENTS, Cluster
from moorage_cli.errors import CommandError
from moorage_cli.estimate import read_shape
from moorage_cli.footprint import Surroundings, footprint_lines, prices_from, surroundings
from moorage_cli.paint import Paint, coloured_diff, print_lines
from moorage_cli.progress import seconds, utc_now
from moorage_cli.rehearsal import Moment, Rehearsed, Write, rehearse
from moorage_cli.scaling import scaling_lines
from moorage_cli.verbs import add_verb
from moorage_operator.cluster.resources import LEADER_WORKER_SETS
from moorage_operator.manifest import (
    KINDS,
    LEADER_WORKER_SET,
    STATEFUL_SET,
    WORKLOADS,
    Manifest,
    dig,
    kind_of,
    name_of,
    namespace_of,
    revision_of,
)
from moorage_operator.plan.metrics_api import MetricsApi
from moorage_operator.plan.snapshot import Snapshot
from moorage_operator.render.context import Context
from moorage_operator.render.sharding import pods_of
from moorage_operator.render.workload import template_of

if TYPE_CHECKING:
    from moorage_cli.verbs import Verbs

_DESCRIPTION: Final = """\
Say what would come of a manifest before it is applied: what would be created or changed, whether nodes have room for
it, what it costs, and what the rollout would do step by step. The same functions as the operator's decide. Nothing is
written.

Against a cluster the API server checks the manifest as it would when it is applied (kubectl apply --dry-run=server),
and what runs there is taken into account. With --offline there is neither; only what each field may hold is checked.
Room is judged by resources, labels and taints of nodes; affinity among pods and volumes are left to the scheduler.
"""
_EPILOG: Final = """\
exit status: 0 it would be accepted; 1 it would not (the reason is on stderr); 2 wrong usage
examples:
  %(prog)s -f chat.yaml
  %(prog)s -f chat.yaml --offline --manifests
  %(prog)s -f chat.yaml --model-config config.json --prices prices.yaml
"""
_COLOURS: Final = {"create": "green", "change": "yellow", "delete": "red"}
_IMAGE: Final = "the installation's runtime image"
_CHILD_KINDS: Final = (
    "controllerrevisions,deployments,statefulsets,services,networkpolicies,poddisruptionbudgets,"
    "horizontalpodautoscalers,pods"
)


@dataclass(frozen=True)
class Planned:
    """What would come of one manifest."""

    before: Manifest | None
    """The live object; None where it would be new."""
    after: Manifest
    rollout: Rehearsed


def add_to(verbs: "Verbs") -> None:
    """Declare the verb."""
    parser = add_verb(verbs, "plan", "what would come of a manifest, before it is applied", _DESCRIPTION, _EPILOG)
    parser.add_argument("-f", "--filename", metavar="FILE", required=True, help="the manifest; - is stdin")
    parser.add_argument("--offline", action="store_true", help="ask no cluster: as if nothing were there")
    parser.add_argument(
        "--field-manager",
        metavar="NAME",
        help="as who applies it server-side, such as argocd-controller or kubectl; default: kubectl apply, client-side",
    )
    parser.add_argument("--manifests", action="store_true", help="also print what would be created, as YAML")
    parser.add_argument(
        "--runtime-image", metavar="IMAGE", default=_IMAGE, help="the engine's image where the manifest names none"
    )
    parser.add_argument(
        "--model-config", metavar="FILE", help="the model's config.json: how much memory it needs follows from that"
    )
    parser.add_argument(
        "--prices", metavar="FILE", help="price map: currency, and perHour by product or resource; default: the chart's"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Plan each LLMDeployment of the file."""
    context = Context(options.runtime_image, "")
    cluster = None if options.offline else Cluster.of(options)
    shape = read_shape(options.model_config) if options.model_config else None
    prices = prices_from(_text(options.prices), options.prices) if options.prices else None
    around = surroundings(cluster, prices, shape)
    for manifest in _read(options.filename):
        if cluster is None:
            planned = offline(manifest, options.namespace, context)
        else:
            planned = online(manifest, cluster, context, options.field_manager)
        print_lines(report(planned, Paint.on(sys.stdout), around))
        if options.manifests:
            documents = [one.manifest for one in planned.rollout.writes if one.verb == "create"]
            print("---\n" + yaml.safe_dump_all(documents, sort_keys=False, width=120), end="")
    return 0


def _read(filename: str) -> list[dict[str, Any]]:
    try:
        documents = list(yaml.safe_load_all(_text(filename)))
    except yaml.YAMLError as error:
        raise CommandError(f"{filename}: {' '.join(str(error).split())}") from error
    ours = [one for one in documents if isinstance(one, dict) and one.get("kind") == names.KIND]
    if not ours:
        raise CommandError(f"{filename} has no {names.KIND}; moor plans nothing else")
    return ours


def _text(filename: str) -> str:
    try:
        return sys.stdin.read() if filename == "-" else Path(filename).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{filename}: {' '.join(str(error).split())}") from error


def offline(manifest: Manifest, namespace: str | None, context: Context) -> Planned:
    """As if nothing were there.

    Raises:
        CommandError: a field holds what it may not.
    """
    metadata = {"namespace": namespace or "default", **dig(manifest, "metadata", default={})}
    created = {"uid": "planned", "generation": 1, "creationTimestamp": f"{utc_now():%Y-%m-%dT%H:%M:%SZ}"}
    after = {**manifest, "metadata": {**metadata, **created}}
    try:
        unknown = parse(after).unknown_fields
    except InvalidObjectError as error:
        raise CommandError(str(error)) from None
    if unknown:
        raise CommandError(f"unknown fields: {', '.join(unknown)}; `kubectl explain llmdeployment.spec` lists them")
    return _planned(None, after, (), context)


def online(manifest: Manifest, cluster: Cluster, context: Context, manager: str | None = None) -> Planned:
    """With what is there; applied client-side, or server-side as `manager`.

    Raises:
        CommandError: the API server would refuse it.
    """
    text = yaml.safe_dump(manifest)
    how = ("--server-side", "--force-conflicts", f"--field-manager={manager}") if manager else ()
    after = cluster.read("apply", "--dry-run=server", "--filename=-", *how, stdin=text)
    inside = cluster.within(namespace_of(after))
    found = inside.read("get", LLMDEPLOYMENTS, f"--field-selector=metadata.name={name_of(after)}")
    before = next(iter(found["items"]), None)
    kinds, group_kind = _CHILD_KINDS, STATEFUL_SET
    sharded = any(dig(one, "spec", "sharding", "pods", default=1) > 1 for one in (before, after))
    if sharded and cluster.serves(LEADER_WORKER_SETS):  # who plans another one needs no right to see them
        kinds, group_kind = f"{kinds},{LEADER_WORKER_SETS.full_name}", LEADER_WORKER_SET
    children = inside.read("get", kinds, f"--selector={names.DEPLOYMENT_LABEL}={name_of(after)}")["items"]
    return _planned(before, after, children, context, group_kind)


def _planned(
    before: Manifest | None,
    after: Manifest,
    children: Sequence[Manifest],
    context: Context,
    group_kind: str = STATEFUL_SET,
) -> Planned:
    by_kind = {kind: tuple(one for one in children if kind_of(one) == kind) for kind in KINDS}
    # As in an installation whose gateways serve metrics.
    now, metrics = utc_now().replace(microsecond=0), MetricsApi(served=True)
    snapshot = Snapshot(after, by_kind, now, metrics=metrics, group_kind=group_kind)
    return Planned(before, after, rehearse(snapshot, context))


# What is said about it


def report(planned: Planned, paint: Paint, around: Surroundings) -> list[str]:
    """All of it, as lines."""
    name = f"{namespace_of(planned.after)}/{name_of(planned.after)}"
    change = spec_diff(planned.before, planned.after)
    verb = "created" if planned.before is None else "changed" if change else "left as it is"
    lines = [paint(f"{names.KIND} {name} would be {verb}", "bold")]
    if planned.before is not None:
        lines += [f"  {line}" for line in coloured_diff(change, paint)]
    writes = [_write(one, paint) for one in planned.rollout.writes]
    lines += ["", "the operator would, one after the other" if writes else "the operator would do nothing", *writes]
    lines += list(_needs(planned.rollout.writes))
    lines += footprint_lines(planned.before, planned.after, planned.rollout, around)
    lines += scaling_lines(planned.after)
    return [*lines, "", *rollout_lines(planned.rollout)]


def spec_diff(before: Manifest | None, after: Manifest) -> list[str]:
    """What changes in spec, as a unified diff."""
    old, new = (yaml.safe_dump(dig(one, "spec", default={})).splitlines() for one in (before or {}, after))
    return [line for line in difflib.unified_diff(old, new, n=1, lineterm="") if not line.startswith(("---", "+++"))]


def _write(write: Write, paint: Paint) -> str:
    verb, kind, name = write.what
    return f"  {paint(verb, _COLOURS[verb])} {kind} {name}  ({write.reason})"


def _needs(writes: Iterable[Write]) -> Iterator[str]:
    """What one replica, or one pod of one, asks of its node, for each revision with new ones."""
    told = set()
    for write in writes:
        if write.verb != "create" or kind_of(write.manifest) not in WORKLOADS or revision_of(write.manifest) in told:
            continue
        told.add(revision_of(write.manifest))
        template = template_of(write.manifest)
        pods = pods_of(template)
        each = "each replica" if pods == 1 else f"each of the {pods} pods"
        containers = dig(template, "spec", "containers", default=())
        asked = dig(containers[0], "resources", default={}) if containers else {}
        amounts = {**asked.get("limits", {}), **asked.get("requests", {})}
        words = ", ".join(f"{name} {amount}" for name, amount in sorted(amounts.items()))
        yield f"  {each} of {name_of(write.manifest)} asks for {words or 'nothing in particular'}"


def rollout_lines(rollout: Rehearsed) -> list[str]:
    """The moments of a rollout."""
    lines = ["the rollout, where every replica starts at once and every gate holds (neither takes time here)"]
    lines += [_moment(one) for one in rollout.moments]
    end = f"{rollout.reason}: {rollout.message}"
    return [*lines, f"  in the end {end}" if rollout.settled else f"  and it would stop at {end}"]


def _moment(moment: Moment) -> str:
    shares = ", ".join(
        f"r{one.number} ({one.role}) {one.weight} % on {one.replicas} {'replica' if one.replicas == 1 else 'replicas'}"
        for one in moment.shares
    )
    return f"  +{seconds(moment.seconds):<6} {shares}  {moment.why}"
