"""The accelerators of a revision: read from its record, and whether they are what a pod waits for."""

from dataclasses import replace

import pytest

from moorage_operator.plan.accelerators import Accelerators
from moorage_operator.plan.nodes import Nodes, nodes

GPU = "nvidia.com/gpu"
CONFLICT = "0/2 nodes are available: 2 node(s) had volume node affinity conflict."
ELSEWHERE = "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't match Pod's node affinity/selector."


def unplaced(make, words, revision=1):
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words}
    return make.pod(revision, conditions=[condition])


@pytest.mark.parametrize(
    ("accelerator", "found"),
    [
        (None, None),
        ({"resource": "amd.com/gpu", "count": 2}, Accelerators("amd.com/gpu", 2)),
        ({}, Accelerators(GPU, 1)),
        ({"count": "many"}, None),
        ("a large one", None),
    ],
)
def test_a_revision_has_those_that_its_record_says(accelerator, found):
    assert Accelerators.of({"spec": {"accelerator": accelerator}}) == found


def test_without_a_record_there_are_none():
    assert Accelerators.of(None) is None
    assert Accelerators.of({"spec": None}) is None


@pytest.mark.parametrize(
    ("words", "lacked"),
    [
        ("0/2 nodes are available: 2 Insufficient nvidia.com/gpu.", True),
        (ELSEWHERE, True),
        (CONFLICT, False),
        ("0/2 nodes are available: 2 Insufficient memory.", False),
        ("", False),
    ],
)
def test_the_scheduler_says_what_a_pod_is_without(words, lacked):
    assert Accelerators(GPU, 1).lacked(words) is lacked


def test_a_claim_that_is_far_from_free_accelerators_is_no_lack_of_them(make, ready_condition):
    snapshot = make.running(make.deployment(accelerator={"count": 1}), unplaced(make, CONFLICT))
    found = ready_condition(snapshot)
    assert found["reason"] == "Unschedulable"
    assert found["message"].startswith(CONFLICT.rstrip("."))


def test_going_back_to_a_revision_without_accelerators_waits_for_none(make, ready_condition):
    """What spec asks for besides `rollbackTo` is not what waits."""
    placed = {"spec": {"nodeSelector": {"disk": "ssd"}}}
    before = make.running(make.deployment(podTemplate=placed))
    wanted = make.deployment(podTemplate=placed, accelerator={"count": 1}, rollbackTo={"revision": 1})
    children = [one for kind in before.children.values() for one in kind]
    listed = {"metadata": {"name": "cpu", "labels": {"disk": "ssd"}}, "status": {"allocatable": {"cpu": "8"}}}
    snapshot = replace(make.snapshot(wanted, *children, unplaced(make, ELSEWHERE)), nodes=Nodes(nodes([listed], {})))
    found = ready_condition(snapshot)
    assert found["reason"] == "Unschedulable"
    assert found["message"].startswith(ELSEWHERE.rstrip("."))


def test_going_back_to_a_revision_with_other_accelerators_waits_for_those(make, ready_condition):
    before = make.running(make.deployment(accelerator={"resource": "amd.com/gpu", "count": 2}))
    wanted = make.deployment(accelerator={"count": 1}, rollbackTo={"revision": 1})
    children = [one for kind in before.children.values() for one in kind]
    listed = {"metadata": {"name": "n"}, "status": {"allocatable": {"amd.com/gpu": "4"}}}
    words = "0/1 nodes are available: 1 Insufficient amd.com/gpu."
    taken = {"n": {"amd.com/gpu": 3}}
    snapshot = replace(make.snapshot(wanted, *children, unplaced(make, words)), nodes=Nodes(nodes([listed], taken)))
    found = ready_condition(snapshot)
    assert found["reason"] == "WaitingForGPU"
    assert found["message"].startswith(f"Needs 2 x amd.com/gpu on one node; n has 1 of 4 free. {words}")
