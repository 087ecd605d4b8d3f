"""`moor doctor`: what is wrong with an installation, and what to do about it."""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from moorage_api import crd, names
from moorage_api.conditions import Reason
from moorage_cli.cluster import LLMDEPLOYMENTS, Cluster, KubectlError
from moorage_cli.errors import CommandError
from moorage_cli.paint import Paint
from moorage_cli.progress import condition, outcome, utc_now
from moorage_cli.verbs import add_verb
from moorage_operator.cluster.compare import includes
from moorage_operator.cluster.resources import LEADER_WORKER_SETS
from moorage_operator.manifest import dig, label_of, name_of, namespace_of
from moorage_operator.plan import metrics_api

if TYPE_CHECKING:
    from moorage_cli.verbs import Verbs

_DESCRIPTION: Final = """\
Look for what is wrong with an installation: the API server, the CustomResourceDefinition, operator, gateway, versions,
who serves the metrics that autoscalers go by, the rights of whoever asks, and the LLMDeployments themselves.
"""
_EPILOG: Final = "exit status: 0 nothing is broken (`warn` is worth a look); 1 something is; 2 wrong usage"
_OPERATOR: Final = "moorage-operator"
_LEASE_SECONDS: Final = 30
"""After a kill another operator leads within 20 s; later than that nobody does."""
_STOPPED: Final = Reason.SCALING_DISABLED
_RIGHTS: Final = (
    ("get", LLMDEPLOYMENTS, "every verb"),
    ("watch", LLMDEPLOYMENTS, "rollout status"),
    ("patch", LLMDEPLOYMENTS, "rollout pause, promote, …; rollback; plan"),
    ("list", "controllerrevisions.apps", "history, diff, rollback, plan"),
    ("list", "pods", "plan"),
    ("list", "deployments.apps", "plan"),
    ("list", "statefulsets.apps", "plan"),
    ("list", "networkpolicies.networking.k8s.io", "plan"),
    ("list", "horizontalpodautoscalers.autoscaling", "plan"),
    ("list", "nodes", "plan, to say whether it fits"),
)
"""Verb, resource, and what needs it."""


class Grade(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


_COLOURS: Final = {Grade.OK: "green", Grade.WARN: "yellow", Grade.FAIL: "red"}


@dataclass(frozen=True)
class Check:
    """What was looked at, and what was found; for all but `OK` with the next step."""

    grade: Grade
    subject: str
    found: str


def add_to(verbs: "Verbs") -> None:
    """Declare the verb."""
    parser = add_verb(verbs, "doctor", "find what is wrong with an installation", _DESCRIPTION, _EPILOG)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print each check when it is done."""
    paint = Paint.on(sys.stdout)
    broken = 0
    for check in examine(Cluster.of(options)):
        print(f"{paint(f'{check.grade:<4}', _COLOURS[check.grade])}  {check.subject:<12}  {check.found}", flush=True)
        broken += check.grade is Grade.FAIL
    if broken:
        raise CommandError(f"{broken} {'check' if broken == 1 else 'checks'} failed; start with the first")
    return 0


def examine(cluster: Cluster) -> Iterator[Check]:
    """All checks, in the order in which one needs the other."""
    server = _careful("API server", _server, cluster)
    yield from server
    if any(check.grade is Grade.FAIL for check in server):
        return
    yield from _careful("CRD", _definition, cluster)
    yield from _careful("operator", _operator, cluster)
    yield from _careful("gateway", _gateway, cluster)
    yield from _careful("metrics", _metrics, cluster)
    yield from (_right(cluster, *right) for right in _RIGHTS)
    yield from _careful("rights", _more_rights, cluster)
    yield from _careful("models", _models, cluster)


def _careful(subject: str, look: Callable[[Cluster], Iterator[Check]], cluster: Cluster) -> list[Check]:
    """What a check finds; what it may not see is no fault of the installation."""
    try:
        return list(look(cluster))
    except KubectlError as error:
        unseen = "(Forbidden)" in error.said
        return [Check(Grade.WARN if unseen else Grade.FAIL, subject, str(error))]


def _more_rights(cluster: Cluster) -> Iterator[Check]:
    """Those about kinds that not every cluster has."""
    if cluster.serves(LEADER_WORKER_SETS):
        yield _right(cluster, "list", LEADER_WORKER_SETS.full_name, "plan")


def _server(cluster: Cluster) -> Iterator[Check]:
    found = cluster.read("version")["serverVersion"]["gitVersion"]
    yield Check(Grade.OK, "API server", f"Kubernetes {found}")


def _definition(cluster: Cluster) -> Iterator[Check]:
    live = cluster.read("get", "crd", f"--field-selector=metadata.name={crd.NAME}")["items"]
    if not live:
        install = "helm install moorage charts/moorage, or moor crd --print | kubectl apply --server-side -f -"
        yield Check(Grade.FAIL, "CRD", f"{crd.NAME} is not there; {install}")
    elif not includes(live[0]["spec"], crd.custom_resource_definition()["spec"]):
        said = f"differs from that of moor {version('moorage')}: fields may be missing; upgrade the older of the two"
        yield Check(Grade.WARN, "CRD", said)
    else:
        yield Check(Grade.OK, "CRD", f"{names.API_VERSION}, as this moor knows it")


def _operator(cluster: Cluster) -> Iterator[Check]:
    for found in _program(cluster, "operator", _OPERATOR):
        yield found
        if found.grade is Grade.FAIL:
            return
    for lease in _leases(cluster):
        renewed = datetime.fromisoformat(dig(lease, "spec", "renewTime", default="1970-01-01T00:00:00Z"))
        age = (utc_now() - renewed).total_seconds()
        holder = dig(lease, "spec", "holderIdentity", default="") or "nobody"
        if age > _LEASE_SECONDS:
            said = f"nobody has led for {age:.0f} s ({holder} did); kubectl logs -n {namespace_of(lease)}"
            yield Check(Grade.FAIL, "leader", f"{said} deploy/{_OPERATOR}")
        else:
            yield Check(Grade.OK, "leader", f"{holder}, {max(age, 0):.0f} s ago")


def _leases(cluster: Cluster) -> list[dict[str, Any]]:
    selector = f"--field-selector=metadata.name={_OPERATOR}"
    items: list[dict[str, Any]] = cluster.read("get", "leases", "--all-namespaces", selector)["items"]
    return items


def _gateway(cluster: Cluster) -> Iterator[Check]:
    yield from _program(cluster, "gateway", names.GATEWAY)


def _program(cluster: Cluster, subject: str, name: str) -> Iterator[Check]:
    """The Deployments of one of our programs, by the label that the chart puts on them."""
    selector = f"--selector={names.NAME_LABEL}={name}"
    items = cluster.read("get", "deployments", "--all-namespaces", selector)["items"]
    if not items:
        yield Check(Grade.FAIL, subject, f"no Deployment has the label {names.NAME_LABEL}={name}; install the chart")
    for one in items:
        yield from _replicas(subject, one)


def _replicas(subject: str, deployment: dict[str, Any]) -> Iterator[Check]:
    where = f"{namespace_of(deployment)}/{name_of(deployment)}"
    ready, wanted = (
        dig(deployment, "status", "readyReplicas", default=0),
        dig(deployment, "spec", "replicas", default=1),
    )
    runs = dig(deployment, "metadata", "labels", "app.kubernetes.io/version", default="of unknown version")
    counted = f"{where} {runs}: {ready} of {wanted} ready"
    look = f"kubectl describe pods -n {namespace_of(deployment)} -l {names.NAME_LABEL}={name_of(deployment)}"
    if not ready:
        yield Check(Grade.FAIL, subject, f"{counted}; {look}")
    elif ready < wanted:
        yield Check(Grade.WARN, subject, f"{counted}; {look}")
    elif runs != version("moorage"):
        yield Check(Grade.WARN, subject, f"{counted}; this moor is {version('moorage')}: upgrade the older of the two")
    else:
        yield Check(Grade.OK, subject, counted)


def _metrics(cluster: Cluster) -> Iterator[Check]:
    """Who serves what autoscalers ask for. One that nobody answers keeps every namespace from being deleted."""
    listed = cluster.read("get", "apiservices.apiregistration.k8s.io")["items"]
    there = [one for one in listed if name_of(one) in metrics_api.OF_THE_GROUP]
    for service in there:
        yield _registered(service)
    if not there:
        autoscaled = [one for one in cluster.read("get", LLMDEPLOYMENTS)["items"] if dig(one, "spec", "autoscaling")]
        absent = f"{metrics_api.NAME} is not registered"
        if autoscaled:
            what = f"{absent}, so nothing is scaled; ScalingActive of {name_of(autoscaled[0])} says why"
            yield Check(Grade.WARN, "metrics", what)
        else:
            yield Check(Grade.OK, "metrics", f"{absent}, and nothing in this namespace is autoscaled")


def _registered(service: dict[str, Any]) -> Check:
    target = dig(service, "spec", "service", default={})
    where = f"{target.get('namespace')}/{target.get('name')}" if target else "the API server itself"
    served = f"{name_of(service)} is served by {where}"
    if label_of(service, names.MANAGED_BY_LABEL) != names.MANAGED_BY:
        spoilt = (
            "autoscaled models have only CPUUtilization; remove that adapter, or scale by an autoscaler of your own"
        )
        return Check(Grade.WARN, "metrics", f"{served}, which is not Moorage: {spoilt}")
    said = condition(service, "Available")
    if said.get("status") == "True":
        return Check(Grade.OK, "metrics", served)
    why = said.get("message") or "nobody has asked it yet"
    harm = "nothing is scaled, and no namespace can be deleted"
    look = f"kubectl logs -n {target.get('namespace')} deploy/{names.GATEWAY}"
    return Check(Grade.FAIL, "metrics", f"{served}, which does not answer ({why}): {harm}; {look}")


def _right(cluster: Cluster, verb: str, resource: str, purpose: str) -> Check:
    try:
        cluster.run("auth", "can-i", verb, resource)
    except KubectlError:
        return Check(Grade.WARN, "your rights", f"you may not {verb} {resource}, which moor needs for: {purpose}")
    return Check(Grade.OK, "your rights", f"{verb} {resource}")


def _models(cluster: Cluster) -> Iterator[Check]:
    found = cluster.read("get", LLMDEPLOYMENTS)["items"]
    stands = {name_of(one): outcome(one) for one in found}
    wrong = {name: one for name, one in stands.items() if one.done is False or one.reason == "NotSeenYet"}
    for name, one in wrong.items():
        yield Check(Grade.WARN, "models", f"{name}: {one}")
    unscaled = [(name_of(one), said) for one in found if (said := condition(one, "ScalingActive"))]
    unscaled = [one for one in unscaled if one[1]["status"] == "False" and one[1]["reason"] != _STOPPED]
    for name, said in unscaled:
        yield Check(Grade.WARN, "models", f"{name} does not scale: {said['reason']}: {said['message']}")
    if not wrong and not unscaled:
        yield Check(Grade.OK, "models", f"{len(stands)} in this namespace, none of them is stuck")
