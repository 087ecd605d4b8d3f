"""Who reaches the pods of a group, by what is rendered: as a network plugin reads NetworkPolicies.

Source: NetworkPolicy v1. Pods that no policy selects are open; to those that one does, what any rule admits may come.
"""

import pytest

from moorage_api import names
from moorage_api.llmdeployment import Spec
from moorage_operator.render.context import Context, Owner
from moorage_operator.render.pod import pod_template
from moorage_operator.render.resolve import resolve_pod
from moorage_operator.render.sharding import ranks_policy, ranks_service
from moorage_operator.render.workload import Making, group
from moorage_runtime.group.place import DEFAULT_PORT

OWNER, OTHER = Owner("chat", "team", "u1"), Owner("mail", "team", "u2")
CONTEXT = Context("moorage/runtime:1", "http://gateway/v1")
STREAM = 41234
"""A port that the machine gave a rank."""
GATEWAY = {names.NAME_LABEL: names.GATEWAY}


def spec_of(pods):
    return Spec.model_validate(
        {"model": {"source": "hf://org/model"}, "sharding": {"tensorParallel": pods, "pods": pods}}
    )


def member(owner=OWNER, revision=1, number=0, index=0):
    """Labels of a pod of a group, as its controller makes it."""
    workload = group(owner, revision, number, pod_template(owner, revision, spec_of(2), CONTEXT), Making())
    return {**workload["spec"]["template"]["metadata"]["labels"], names.POD_INDEX_LABEL: str(index)}


def alone(owner=OWNER):
    """Of a replica that is one pod."""
    return pod_template(owner, 1, spec_of(1), CONTEXT)["metadata"]["labels"]


def selects(selector, labels):
    expressions = selector.get("matchExpressions", ())
    assert {one["operator"] for one in expressions} <= {"Exists"}, "this test knows no other one"
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        one["key"] in labels for one in expressions
    )


def admits(policy, labels, port, sender=None):
    """`sender`: labels of a pod of the namespace; None: from elsewhere, such as another namespace, or the node."""
    spec = policy["spec"]
    assert spec["policyTypes"] == ["Ingress"], "where its answers and its downloads go is nobody's business"
    if not selects(spec["podSelector"], labels):
        return True
    return any(_by(rule, port, sender) for rule in spec["ingress"])


def _by(rule, port, sender):
    ports = [one["port"] for one in rule.get("ports", ()) if one["protocol"] == "TCP"]
    peers = rule.get("from")
    known = peers is None or (sender is not None and any(selects(one["podSelector"], sender) for one in peers))
    return known and (not ports or port in ports)


@pytest.mark.parametrize("port", [DEFAULT_PORT, STREAM, names.HTTP_PORT])
@pytest.mark.parametrize("index", [0, 1])
def test_ranks_of_a_group_reach_each_other_on_every_port(port, index):
    policy = ranks_policy(OWNER)
    assert admits(policy, member(index=index), port, member(index=1 - index))


@pytest.mark.parametrize(
    "sender",
    [None, GATEWAY, alone(), member(OTHER), {"app": "prometheus"}],
    ids=["elsewhere", "gateway", "replica", "another", "prometheus"],
)
def test_everybody_else_reaches_the_port_of_requests_and_no_other(sender):
    policy = ranks_policy(OWNER)
    for index in (0, 1):
        assert admits(policy, member(index=index), names.HTTP_PORT, sender)
        assert not admits(policy, member(index=index), DEFAULT_PORT, sender)
        assert not admits(policy, member(index=index), STREAM, sender)


def test_nobody_elses_pods_are_closed_by_it():
    policy = ranks_policy(OWNER)
    resolving = resolve_pod(OWNER, 1, spec_of(2), CONTEXT)["metadata"]["labels"]
    for labels in (alone(), alone(OTHER), member(OTHER), GATEWAY, resolving):
        assert admits(policy, labels, STREAM)


def test_probes_and_figures_come_by_the_port_that_is_open():
    """And no other port of the containers is anybody else's business."""
    (server,) = pod_template(OWNER, 1, spec_of(2), CONTEXT)["spec"]["containers"]
    assert {(port["name"], port["containerPort"]) for port in server["ports"]} == {("http", names.HTTP_PORT)}
    probes = {name: probe["httpGet"]["port"] for name, probe in server.items() if name.endswith("Probe")}
    assert set(probes) == {"startupProbe", "readinessProbe", "livenessProbe"}
    assert set(probes.values()) <= {"http", names.HTTP_PORT}


def test_names_of_ranks_are_those_of_the_pods_that_the_policy_opens():
    selector = {"matchLabels": ranks_service(OWNER)["spec"]["selector"]}
    assert selects(selector, member(index=0))
    assert not selects(selector, member(OTHER))
