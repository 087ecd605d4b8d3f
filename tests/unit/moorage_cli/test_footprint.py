"""Memory, room and money of a planned deployment."""

import json
from decimal import Decimal

import pytest

from moorage_api.llmdeployment import Spec
from moorage_cli.cluster import KubectlError
from moorage_cli.errors import CommandError
from moorage_cli.estimate import memory_lines, read_shape
from moorage_cli.fit import fit_lines
from moorage_cli.footprint import Surroundings, footprint_lines, prices_from, surroundings
from moorage_cli.prices import cost, cost_line
from moorage_cli.rehearsal import Moment, Rehearsed, Share, Write
from moorage_operator.plan.nodes import nodes

GPU, L4, H100, OWN = "nvidia.com/gpu", "NVIDIA-L4", "NVIDIA-H100", "OUR-OWN"
LLAMA_8B = {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}


def node(name, gpus=0, **allocatable):
    there = {"cpu": "4", "memory": "16Gi", "pods": "110", **allocatable}
    return {"metadata": {"name": name}, "status": {"allocatable": there | ({GPU: str(gpus)} if gpus else {})}}


def pod(**limits):
    amounts = {name.replace("gpu", GPU): value for name, value in limits.items()}
    return {"spec": {"containers": [{"resources": {"limits": amounts}}]}}


def group(size, **limits):
    """The template of replicas of so many pods."""
    return {"metadata": {"labels": {"moorage.dev/group-size": str(size)}}, **pod(**limits)}


def fit(needed, template, *listed, taken=None):
    return fit_lines(needed, template, nodes(listed, taken or {}))


def test_room_for_all_of_them():
    assert fit(3, pod(gpu="2"), node("a", 8), node("b", 2), node("c")) == [
        "it fits: room for 3 replicas is needed at once; a has room for 4, b has room for 1"
    ]
    assert fit(0, pod(gpu="2")) == ["no room is needed beside what runs already"]


def test_why_there_is_no_room():
    assert fit(3, pod(gpu="4"), node("a", 8), node("b", 2), taken={"a": {GPU: 1}}) == [
        "it does not fit: room for 3 replicas is needed at once, and there is room for 1",
        "  a: has room for 1",
        "  b: has 2 nvidia.com/gpu, even empty; a replica asks for 4 nvidia.com/gpu",
    ]
    elsewhere = {"spec": {**pod(memory="1Gi")["spec"], "nodeSelector": {"zone": "x"}}}
    assert fit(1, elsewhere, node("a"))[1] == ("  a: its labels keep the replica away")
    assert fit(1, pod(memory="12Gi"), node("a"), taken={"a": {"memory": 8 * 2**30}})[1] == (
        "  a: has 8.0 GiB of memory free; a replica asks for 12.0 GiB of memory"
    )
    many = fit(99, pod(gpu="1"), *[node(f"n{i}", 1) for i in range(9)])
    assert many[-1] == "  and 5 more nodes"
    assert fit(1, pod(gpu="1"))[1] == "  there are no nodes; a cluster autoscaler would have to bring some"


def test_the_pods_of_a_replica_may_be_on_several_nodes():
    assert fit(1, group(3, gpu="4"), node("a", 8), node("b", 4)) == [
        "it fits: room for 1 replica of 3 pods is needed at once; a has room for 2, b has room for 1"
    ]
    assert fit(2, group(2, gpu="4"), node("a", 8), node("b", 2)) == [
        "it does not fit: room for 2 replicas of 2 pods each is needed at once, and there is room for 2 pods",
        "  a: has room for 2",
        "  b: has 2 nvidia.com/gpu, even empty; a pod asks for 4 nvidia.com/gpu",
    ]


@pytest.fixture
def shape(tmp_path):
    def read(**changes):
        file = tmp_path / "config.json"
        file.write_text(json.dumps({**LLAMA_8B, **changes}))
        return read_shape(str(file))

    return read


def spec(**model):
    return Spec.model_validate({"model": {"source": "python://m==1", **model}})


@pytest.mark.parametrize(
    ("model", "device", "said"),
    [
        ({"contextLength": 8192}, 80.0, "about 16.0 GiB of 80 GiB at least: weights 15.0 GiB, and 1.0 GiB for one"),
        (
            {},
            24.0,
            "about 31.0 GiB of 24 GiB, so it does not fit: weights 15.0 GiB, and 16.0 GiB for one request of 131",
        ),
        ({"contextLength": 8192, "quantization": "Int8"}, None, "about 8.9 GiB: weights 7.9 GiB"),
        ({"contextLength": 8192, "quantization": "Int4"}, None, "about 6.1 GiB: weights 5.1 GiB"),
    ],
)
def test_memory_follows_from_the_models_shape(shape, model, device, said):
    assert memory_lines(shape(), spec(**model), device)[0].startswith(said)


@pytest.mark.parametrize(
    ("ranks", "pods", "gpus", "said"),
    [
        (2, 1, 2, "about 8.0 GiB of 24 GiB at least: for each rank at most weights 7.5 GiB, and 0.5 GiB for one"),
        (2, 2, 1, "about 8.0 GiB of 24 GiB at least: for each rank at most weights 7.5 GiB"),
        (3, 1, 3, "about 5.5 GiB of 24 GiB at least: for each rank at most weights 5.1 GiB"),  # 3, 3 and 2 of 8 heads
        # Two ranks of 16 have copies of a KV head.
        (16, 2, 8, "about 1.1 GiB of 24 GiB at least: for each rank at most weights 1.0 GiB, and 0.1 GiB for one"),
        (16, 2, 0, "about 8.7 GiB of 24 GiB at least: for each pod at most weights 7.7 GiB, and 1.0 GiB for one"),
        (2, 1, 0, "about 16.0 GiB of 24 GiB at least: weights 15.0 GiB"),
        (2, 2, 0, "about 8.0 GiB of 24 GiB at least: for each pod at most weights 7.5 GiB"),
        (6, 2, 0, "about 8.4 GiB of 24 GiB at least: for each pod at most weights 7.8 GiB, and 0.6 GiB for one"),
    ],
)
def test_ranks_share_the_memory(shape, ranks, pods, gpus, said):
    accelerator = {"accelerator": {"count": gpus}} if gpus else {}
    model = {"source": "python://m==1", "contextLength": 8192}
    sharded = {"model": model, "sharding": {"tensorParallel": ranks, "pods": pods}, **accelerator}
    assert memory_lines(shape(), Spec.model_validate(sharded), 24.0)[0].startswith(said)


def test_more_ranks_than_there_are_heads_are_too_many(shape):
    model, sharding = {"source": "python://m==1"}, {"tensorParallel": 64, "pods": 8}
    sharded = Spec.model_validate({"model": model, "sharding": sharding})
    assert memory_lines(shape(), sharded, 24.0) == ["it cannot be divided between 64 ranks: it has 32 query heads"]


def test_what_64_requests_take_is_told(shape):
    assert memory_lines(shape(), spec(contextLength=8192), None)[0].endswith("; 64 take 64.0 GiB")


def test_a_config_that_tells_too_little(tmp_path):
    file = tmp_path / "config.json"
    file.write_text("{}")
    with pytest.raises(CommandError, match="has no num_attention_heads"):
        read_shape(str(file))
    file.write_text("[")
    with pytest.raises(CommandError, match="name the model's config"):
        read_shape(str(file))


PRICES = """
{currency: EUR, perHour: {NVIDIA-L4: 0.8, NVIDIA-H100: 2.5, OUR-OWN: 0, nvidia.com/gpu: 1, cpu: 0.03, memory: 0.004}}
"""


@pytest.mark.parametrize(
    ("asks", "products", "replicas", "at_most", "said"),
    [
        ({"gpu": "2", "cpu": "10", "memory": "10Gi"}, (), 1, 1, "2.34 EUR an hour"),
        ({"gpu": "1"}, (H100,), 2, 3, "5.00 EUR an hour for 2 replicas at 2.50 EUR each; at most 7.50 EUR while it"),
        ({"gpu": "1"}, (L4, H100), 1, 1, "0.80 to 2.50 EUR an hour"),
        ({"gpu": "1"}, ("NVIDIA-A10",), 1, 1, "1.00 EUR an hour"),
        ({"cpu": "1", "disk": "1"}, (), 1, 1, "0.03 EUR an hour; without disk, which have no price"),
        ({"disk": "1"}, (), 1, 1, "nothing of what a replica asks for has a price: disk"),
        ({"gpu": "1"}, (OWN,), 2, 2, "0.00 EUR an hour for 2 replicas at 0.00 EUR each"),
        ({"gpu": "1"}, (OWN, L4), 1, 1, "0.00 to 0.80 EUR an hour"),
        ({"google.com/tpu": "1"}, (L4, "TPU"), 1, 1, "0.80 EUR an hour; without TPU, which have no price"),
    ],
)
def test_money(asks, products, replicas, at_most, said):
    prices = prices_from(PRICES, "x")
    assert cost_line(cost(pod(**asks), products, prices), replicas, at_most, prices).startswith(said)


def test_a_replica_costs_what_its_pods_cost():
    prices = prices_from(PRICES, "x")
    assert cost_line(cost(group(4, gpu="2"), (H100,), prices), 1, 1, prices) == "20.00 EUR an hour"


@pytest.mark.parametrize("text", ["[", "[]", "{perHour: [1]}", "{perHour: {cpu: much}}", "{perHour: {cpu: -1}}", "a"])
def test_what_is_no_price_map(text):
    with pytest.raises(CommandError, match=r"^x"):
        prices_from(text, "x")


class Kubectl:
    """Answers what it has, and refuses the rest."""

    def __init__(self, **items):
        self.items = items

    def read(self, _, kind, *__):
        if kind not in self.items:
            raise KubectlError(f'Error from server (Forbidden): {kind} is forbidden: User "me"')
        return {"items": self.items[kind]}


def test_what_a_person_may_not_see_is_said():
    around = surroundings(Kubectl(), None, None)
    assert (around.nodes, around.prices) == (None, None)
    assert "nodes is forbidden" in around.unknown


def test_prices_of_the_installation_count_where_none_are_given():
    kubectl = Kubectl(nodes=[node("a")], pods=[], configmaps=[{"data": {"prices.yaml": PRICES}}])
    assert surroundings(kubectl, None, None).prices.currency == "EUR"
    given = prices_from("{perHour: {cpu: 1}}", "x")
    assert surroundings(kubectl, given, None).prices is given
    assert [one.name for one in surroundings(kubectl, None, None).nodes] == ["a"]


def footprint(around, *, runs, peak, **spec):
    """The lines of an edit where `runs` replicas run, and a rollout has `peak` at once."""
    ranks = {"tensorParallel": 2}
    spec = {"model": {"source": "python://m==1"}, "accelerator": {"count": 2}, "sharding": ranks, **spec}
    after = {"metadata": {"name": "chat", "namespace": "team"}, "spec": spec}
    before = {"status": {"revisions": [{"replicas": runs}]}} if runs else None
    moments = (Moment(0.0, (Share(1, "stable", 100, peak),), ""),)
    write = Write("create", {"kind": "Deployment", "spec": {"template": pod(gpu="2")}}, "")
    return footprint_lines(before, after, Rehearsed((write,), moments, True, "", ""), around)  # noqa: FBT003 - settled


@pytest.mark.parametrize(
    ("replicas", "rollout", "does"),
    [
        (2, {}, "it takes one away for each new one"),
        (1, {}, "it waits; maxUnavailable: 1 would let it replace one"),
        (2, {"maxSurge": 1, "maxUnavailable": 0}, "it waits; maxUnavailable: 1 would let it replace one"),
        (2, {"strategy": "BlueGreen"}, "it waits"),
    ],
)
def test_what_a_rollout_does_that_finds_no_room(replicas, rollout, does):
    around = Surroundings(nodes([node("a", 4)], {"a": {GPU: Decimal(3)}}))
    lines = footprint(around, runs=replicas, peak=replicas + 1, replicas=replicas, rollout=rollout)
    assert lines[1].endswith("a: has 1 nvidia.com/gpu free; a replica asks for 2 nvidia.com/gpu")
    assert lines[2].strip() == f"a rollout that finds no room: {does}"
    roomy = Surroundings(nodes([node("a", 4)], {}))
    assert len(footprint(roomy, runs=replicas, peak=replicas + 1, replicas=replicas, rollout=rollout)) == 1
    assert len(footprint(around, runs=0, peak=1, replicas=1, rollout=rollout)) == 2, "a first start replaces nothing"


def test_what_an_autoscaler_may_come_to_costs_no_more_than_its_budget():
    around = Surroundings(prices=prices_from("{currency: EUR, perHour: {nvidia.com/gpu: 1}}", "x"))
    wish = {"maxReplicas": 8, "targets": [{"metric": "QueueDepth", "averageValue": "1"}]}
    said = footprint(around, runs=0, peak=1, autoscaling=wish)[1]
    assert said.strip() == "scaled out 16.00 EUR an hour for 8 replicas at 2.00 EUR each"
    thrifty = {**wish, "budget": {"accelerators": 7}}
    said = footprint(around, runs=0, peak=1, autoscaling=thrifty)[1]
    assert said.strip() == "scaled out 6.00 EUR an hour for 3 replicas at 2.00 EUR each"


def test_whether_there_is_room_for_as_many_as_an_autoscaler_may_come_to():
    wish = {"maxReplicas": 8, "targets": [{"metric": "QueueDepth", "averageValue": "1"}]}
    around = Surroundings(nodes([node("a", 8)], {}))
    first, *more = [line.strip() for line in footprint(around, runs=1, peak=2, autoscaling=wish)]
    assert first == "nodes   it fits: room for 1 replica is needed at once; a has room for 4"
    assert more == [
        "scaled out to 8, it does not fit: room for 7 replicas is needed at once, and there is room for 4",
        "a: has room for 4",
    ]
    thrifty = {**wish, "budget": {"accelerators": 8}}
    said = footprint(around, runs=1, peak=2, autoscaling=thrifty)[1:]
    assert [line.strip() for line in said] == [
        "scaled out to 4, it fits: room for 3 replicas is needed at once; a has room for 4"
    ]
    full = Surroundings(nodes([node("a", 0)], {}))
    assert not any("scaled out" in line for line in footprint(full, runs=0, peak=1, autoscaling=wish)), "not even one"


def test_accelerators_that_no_rank_uses_are_told():
    said = footprint(Surroundings(), runs=0, peak=1, accelerator={"count": 8}, sharding={"pods": 1})
    (line,) = said
    assert line.startswith("  idle    7 of the 8 accelerators of a replica do nothing, since its one rank uses one; ")
