"""What `moor plan` says of autoscaling and its budget."""

import pytest
import yaml

from moorage_cli.main import main
from moorage_cli.scaling import scaling_lines

TARGETS = [{"metric": "RequestsInFlight", "averageValue": 8}, {"metric": "QueueDepth", "averageValue": "0.5"}]


def manifest(*, rollout=None, accelerator=None, sharding=None, **wish):
    spec = {"model": {"source": "python://model==1"}, "autoscaling": {"maxReplicas": 4, "targets": TARGETS, **wish}}
    parts = {"rollout": rollout, "accelerator": accelerator, "sharding": sharding}
    spec |= {name: part for name, part in parts.items() if part is not None}
    kind = {"apiVersion": "moorage.dev/v1alpha1", "kind": "LLMDeployment"}
    return {**kind, "metadata": {"name": "chat", "namespace": "team"}, "spec": spec}


STUCK = "no room beside them: it waits; maxUnavailable: 1 would let it replace one"
BETWEEN = "  scaling between 1 and 4 replicas by RequestsInFlight 8, QueueDepth 0.5 per replica"


def test_between_which_numbers_and_by_what():
    assert scaling_lines(manifest()) == [BETWEEN]


def test_nothing_is_said_without_autoscaling():
    plain = manifest()
    del plain["spec"]["autoscaling"]
    assert scaling_lines(plain) == []


def test_that_it_goes_to_zero():
    said = scaling_lines(manifest(minReplicas=0, idleAfter="10m"))
    assert said[1] == "          to zero after 10m without a request; the next one waits for a replica to start"


@pytest.mark.parametrize(
    ("budget", "rollout", "said"),
    [
        (16, None, ["the budget of 16 x nvidia.com/gpu is 8 replicas of 2"]),
        (
            8,
            None,
            [
                "the budget of 8 x nvidia.com/gpu is 4 replicas of 2",
                "a rollout from 4 replicas finds no room beside them: it takes one away for each new one",
            ],
        ),
        (
            8,
            {"maxSurge": 1, "maxUnavailable": 0},
            [
                "the budget of 8 x nvidia.com/gpu is 4 replicas of 2",
                f"a rollout from 4 replicas finds {STUCK}",
            ],
        ),
        (
            6,
            {"maxSurge": 0},
            [
                "the budget of 6 x nvidia.com/gpu is 3 replicas of 2; of maxReplicas 4 the rest is cut",
                "a rollout from 3 replicas finds no room beside them: it takes one away for each new one",
            ],
        ),
        (
            2,
            None,
            [
                "the budget of 2 x nvidia.com/gpu is 1 replica of 2; of maxReplicas 4 the rest is cut",
                f"a rollout from 1 replica finds {STUCK}",
            ],
        ),
        (
            8,
            {"strategy": "BlueGreen"},
            [
                "the budget of 8 x nvidia.com/gpu is 4 replicas of 2",
                "a BlueGreen from 4 replicas needs 16: it waits until fewer serve",
            ],
        ),
    ],
)
def test_how_far_a_budget_goes(budget, rollout, said):
    lines = scaling_lines(manifest(budget={"accelerators": budget}, accelerator={"count": 2}, rollout=rollout))
    assert [line.strip() for line in lines[1:]] == said


def test_a_replica_of_several_pods_takes_the_accelerators_of_all():
    given = {"accelerator": {"count": 2}, "sharding": {"tensorParallel": 4, "pods": 2}}
    said = scaling_lines(manifest(budget={"accelerators": 16}, **given))
    assert said[1].strip() == "the budget of 16 x nvidia.com/gpu is 4 replicas of 4"


def test_the_autoscaler_is_among_what_would_be_made_and_costs_are_told_up_to_its_end(tmp_path, capsys):
    (tmp_path / "chat.yaml").write_text(yaml.safe_dump({**manifest(), "spec": {**manifest()["spec"], **RESOURCES}}))
    (tmp_path / "prices.yaml").write_text("{currency: EUR, perHour: {cpu: 0.5}}")
    prices = ("--prices", str(tmp_path / "prices.yaml"))
    assert main(["plan", "--offline", "-f", str(tmp_path / "chat.yaml"), *prices]) == 0
    printed = capsys.readouterr().out
    assert "  create HorizontalPodAutoscaler chat  (spec.replicas follows the load, up to 4)\n" in printed
    assert (
        "  cost    0.50 EUR an hour\n          scaled out 2.00 EUR an hour for 4 replicas at 0.50 EUR each\n" in printed
    )
    assert BETWEEN in printed


RESOURCES = {"resources": {"requests": {"cpu": "1"}}}
