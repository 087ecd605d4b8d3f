"""Pods that the operator renders know their ranks, and all of a group mean the same leader, as the runtime reads it."""

import re

import pytest

from moorage_api import names
from moorage_api.llmdeployment import Spec
from moorage_operator.render.context import Context, Owner
from moorage_operator.render.pod import pod_template
from moorage_operator.render.workload import Making, group
from moorage_runtime.group.place import DEFAULT_PORT
from moorage_runtime.server.command_line import options_of, parser

OWNER = Owner("chat", "team", "u1")


def template(ranks, pods):
    spec = {"model": {"source": "hf://org/model"}, "sharding": {"tensorParallel": ranks, "pods": pods}}
    return pod_template(OWNER, 3, Spec.model_validate(spec), Context("moorage/runtime:1", "http://gateway/v1"))


def started(pod_spec, labels=()):
    """What the runtime makes of a pod's server container, with variables as the kubelet makes them."""
    (server,) = pod_spec["containers"]
    environment = {}
    for one in server["env"]:
        if "valueFrom" in one:
            label = re.fullmatch(r"metadata\.labels\['(.+)'\]", one["valueFrom"]["fieldRef"]["fieldPath"])
            value = labels[label[1]]
        else:
            value = re.sub(r"\$\((\w+)\)", lambda name: environment[name[1]], one["value"])
        environment[one["name"]] = value
    return options_of(parser().parse_args(server["command"][1:]), environment).engine


@pytest.mark.parametrize(("ranks", "pods"), [(2, 2), (4, 2), (3, 3), (64, 8)])
@pytest.mark.parametrize("number", [0, 7])
def test_every_rank_is_in_one_pod_of_a_group_and_all_mean_the_same_leader(ranks, pods, number):
    workload = group(OWNER, 3, number, template(ranks, pods), Making())
    assert workload["spec"]["replicas"] == pods
    made = workload["spec"]["template"]
    found = [started(made["spec"], {**made["metadata"]["labels"], names.POD_INDEX_LABEL: str(i)}) for i in range(pods)]
    assert {engine.tensor_parallel for engine in found} == {ranks}
    computed = [engine.rank + local for engine in found for local in range(engine.local_ranks)]
    assert computed == list(range(ranks))
    assert [engine.follows for engine in found] == [False, *[True] * (pods - 1)]
    leader = f"{workload['metadata']['name']}-0.{workload['spec']['serviceName']}.team.svc"
    assert {engine.leader_address for engine in found} == {f"{leader}:{names.RANKS_PORT}"}
    assert names.RANKS_PORT == DEFAULT_PORT


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_of_one_pod_need_no_address(ranks):
    engine = started(template(ranks, 1)["spec"])
    assert (engine.tensor_parallel, engine.local_ranks, engine.rank, engine.follows) == (ranks, ranks, 0, False)


def test_one_rank_is_no_group():
    assert started(template(1, 1)["spec"]).tensor_parallel is None
