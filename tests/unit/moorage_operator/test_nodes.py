"""What nodes have free, whether a pod fits, and what is said when none has enough accelerators."""

from decimal import Decimal

import pytest

from moorage_api.llmdeployment import Spec
from moorage_operator.plan.accelerators import Accelerators
from moorage_operator.plan.nodes import Nodes, asked, lacking, misfit, nodes, room, used
from moorage_operator.plan.shortage import needs
from moorage_operator.render.accelerator import placement

GPU = "nvidia.com/gpu"
H100 = "NVIDIA-H100-80GB-HBM3"
MEMORY = "nvidia.com/gpu.memory"


def listed(name="n", *, gpus=0, product=None, memory=None, taints=(), **labels):
    found = {**labels, **({"nvidia.com/gpu.product": product} if product else {})}
    found |= {"nvidia.com/gpu.memory": str(memory)} if memory else {}
    allocatable = {"cpu": "3920m", "memory": "32563Ki", "pods": "110", "odd": "1e3"}
    allocatable |= {GPU: str(gpus)} if gpus else {}
    return {
        "metadata": {"name": name, "labels": found},
        "spec": {"taints": list(taints)},
        "status": {"allocatable": allocatable},
    }


def node(*args, used_up=(), **kwargs):
    return nodes([listed(*args, **kwargs)], used(used_up))[0]


def container(**limits):
    return {"resources": {"limits": limits}}


def pod(on="n", phase="Running", **limits):
    return {"spec": {"nodeName": on, "containers": [container(**limits)]}, "status": {"phase": phase}}


def accelerated(count=1, **more):
    accelerator = Spec.model_validate(
        {"model": {"source": "python://m==1"}, "accelerator": {"count": count, **more}}
    ).accelerator
    return {"containers": [container(**{GPU: str(count)})], **placement(accelerator)}


def test_a_pod_asks_for_its_containers_together_or_its_largest_init_container():
    spec = {
        "initContainers": [
            container(cpu="3", memory="1Mi"),
            {**container(cpu="500m"), "restartPolicy": "Always"},
            container(cpu="1", memory="9Mi"),
        ],
        "containers": [container(cpu="1"), {"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "4"}}}, {}],
        "overhead": {"memory": "1Mi"},
    }
    assert asked(spec) == {"cpu": Decimal(3), "memory": Decimal(10 * 2**20)}
    del spec["initContainers"][0]
    assert asked(spec)["cpu"] == Decimal("2.5"), "the sidecar goes on beside the others"


def test_what_is_free_is_what_living_pods_leave():
    there = [pod(**{GPU: "2"}), pod(**{GPU: "4"}, phase="Succeeded"), pod("other", **{GPU: "1"}), {"spec": {}}]
    found = node(gpus=8, used_up=there)
    assert (found.allocatable[GPU], found.free[GPU], found.free["pods"]) == (8, 6, 109)
    assert "odd" not in found.allocatable


@pytest.mark.parametrize(
    ("spec", "how", "why"),
    [
        ({"containers": [container(cpu="4")]}, {}, "cpu"),
        ({"containers": [container(cpu="3")]}, {}, ""),
        (accelerated(), {}, "nvidia.com/gpu"),
        (accelerated(2), {"gpus": 1}, "nvidia.com/gpu"),
        (accelerated(products=[H100]), {"gpus": 1, "product": "NVIDIA-L4"}, "its labels"),
        (accelerated(products=[H100]), {"gpus": 1, "product": H100}, ""),
        (accelerated(minMemory="40Gi"), {"gpus": 1, "memory": 40 * 1024 - 1}, "its labels"),
        (accelerated(minMemory="40Gi"), {"gpus": 1, "memory": 40 * 1024}, ""),
        (accelerated(minMemory="40Gi"), {"gpus": 1}, "its labels"),
        ({"nodeSelector": {"zone": "a"}}, {"zone": "b"}, "its labels"),
        ({"nodeSelector": {"zone": "a"}}, {"zone": "a"}, ""),
        ({}, {"taints": [{"key": "drained", "effect": "NoExecute"}]}, "its taints"),
        ({}, {"taints": [{"key": "slow", "effect": "PreferNoSchedule"}]}, ""),
        (accelerated(), {"gpus": 1, "taints": [{"key": GPU, "value": "x", "effect": "NoSchedule"}]}, ""),
    ],
)
def test_a_pod_that_a_node_would_never_run(spec, how, why):
    assert misfit(node(**how), spec) == why


@pytest.mark.parametrize(
    ("toleration", "fits"),
    [
        ({"operator": "Exists"}, True),
        ({"operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "team", "value": "a"}, True),
        ({"key": "team", "operator": "Equal", "value": "b"}, False),
        ({"key": "other", "operator": "Exists"}, False),
    ],
)
def test_taints_and_tolerations(toleration, fits):
    tainted = node(taints=[{"key": "team", "value": "a", "effect": "NoSchedule"}])
    assert (misfit(tainted, {"tolerations": [toleration]}) == "") is fits


@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        ({"operator": "In", "values": ["a", "b"]}, True),
        ({"operator": "NotIn", "values": ["a"]}, False),
        ({"operator": "Exists"}, True),
        ({"operator": "DoesNotExist"}, False),
        ({"operator": "Gt", "values": ["0"]}, False),
        ({"operator": "Lt", "values": ["9"]}, False),
        ({"key": MEMORY, "operator": "Gt", "values": ["81558"]}, True),
        ({"key": MEMORY, "operator": "Gt", "values": ["81559"]}, False),
        ({"key": MEMORY, "operator": "Gt", "values": ["-1"]}, True),
        ({"key": MEMORY, "operator": "Lt", "values": ["81560"]}, True),
        ({"key": MEMORY, "operator": "Lt", "values": ["81559"]}, False),
        ({"key": MEMORY, "operator": "Gt", "values": ["40Gi"]}, False),
        ({"key": MEMORY, "operator": "Lt", "values": ["40Gi"]}, False),
        ({"key": MEMORY, "operator": "Gt", "values": ["1", "2"]}, False),
        ({"key": MEMORY, "operator": "Gt"}, False),
        ({"key": MEMORY, "operator": "Gt", "values": ["9" * 5000]}, False),
        ({"key": "none", "operator": "Gt", "values": ["1"]}, False),
        ({"operator": "Beside", "values": ["a"]}, False),
        ({}, False),
    ],
)
def test_what_a_person_asks_of_a_node(expression, fits):
    term = {"matchExpressions": [{"key": "zone", **expression}]}
    wanted = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{}, term]}}
    assert (misfit(node(zone="a", memory=81559), {"affinity": {"nodeAffinity": wanted}}) == "") is fits


def test_how_many_fit():
    assert room(node(gpus=8, used_up=[pod(**{GPU: "3"})]), accelerated(2)) == 2
    assert room(node(), {"containers": [container(cpu="500m")]}) == 7
    full = node(gpus=1, used_up=[pod(**{GPU: "1"})])
    assert (room(full, accelerated()), lacking(full, accelerated())) == (0, GPU)


@pytest.mark.parametrize(
    ("spec", "there", "said"),
    [
        (accelerated(2), None, ""),
        (accelerated(2), Nodes(unknown="nodes may not be listed"), "on one node; nodes may not be listed"),
        (accelerated(), Nodes(nodes([listed()], {})), "Needs 1 x nvidia.com/gpu; no node offers nvidia.com/gpu"),
        (
            accelerated(products=[H100]),
            Nodes(nodes([listed("a", gpus=1, product="NVIDIA-L4"), listed("b", gpus=1)], {})),
            "no node would do: a (NVIDIA-L4) is ruled out by its labels, b is ruled out by its labels",
        ),
        (
            {"containers": [container(**{GPU: "4", "cpu": "9"})]},
            Nodes(nodes([listed("a", gpus=2, product=H100), listed("b", gpus=4)], {})),
            f"no node would do: a ({H100}) has too little cpu, b has too little cpu",
        ),
        (
            accelerated(4),
            Nodes(nodes([listed("a", gpus=2, product=H100), listed("b"), listed("c", gpus=1)], {})),
            f"no node would do: a ({H100}) has 2 in all, c has 1 in all",
        ),
        (
            accelerated(2, products=[H100]),
            Nodes(
                nodes(
                    [listed("a", gpus=8, product=H100), listed("b", gpus=4, product=H100), listed("c", gpus=1)],
                    used([pod("a", **{GPU: "8"}), pod("b", **{GPU: "3"})]),
                )
            ),
            f"Needs 2 x nvidia.com/gpu on one node; b ({H100}) has 1 of 4 free, a ({H100}) has 0 of 8 free",
        ),
        (
            accelerated(2),
            Nodes(nodes([listed(f"n{i}", gpus=2) for i in range(6)], used([pod("n5", **{GPU: "1"})]))),
            "n3 has 2 of 2 free, 2 more have no more",
        ),
    ],
)
def test_what_is_said_to_who_waits_for_accelerators(spec, there, said):
    assert needs({"spec": spec}, Accelerators(GPU, int(asked(spec)[GPU])), there).endswith(said)
