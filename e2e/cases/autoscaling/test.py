"""Replicas follow real load by the real autoscaler: up, down, no lost request; another adapter; an HPA of one's own."""

import itertools
import time

import pytest

from e2e.cluster.controlplane import autoscaler_sync

MOST = 3  # as the manifest has it
WORKERS = 8  # more than three replicas of two requests each
OURS = "v1beta2.custom.metrics.k8s.io"


@pytest.fixture(scope="module")
def chat(kit):
    """One replica, and an autoscaler that reads its figure."""
    kit.apply("chat.yaml")
    kit.wait_ready("chat")
    kit.eventually(lambda: scaling(kit), lambda reason: reason == "MetricsFound", 90)
    return f"{kit.namespace}/chat"


def test_replicas_follow_the_load_up_and_down_and_no_request_is_lost(kit, chat, bar):
    with kit.watched("llmdeployment", "chat", fields=[".spec.replicas"]) as seen:
        with kit.load(chat, workers=WORKERS, tokens=100) as load:
            first = reached(kit, 2)
            second = reached(kit, MOST)
            kit.eventually(lambda: kit.row("chat")["READY"], lambda ready: ready == f"{MOST}/{MOST}", 240)
            all_there = time.time()
            load.goes_on()
            assert replicas(kit) == MOST
        ended = time.time()
        kit.eventually(lambda: kit.row("chat")["READY"], lambda ready: ready == "1/1", 240)
        down = time.time() - ended
    began = min(record.started for record in load.records)
    up = {"first_step": first - began, "second_step": second - began, "all_ready": all_there - began}
    looks = "15s" if kit.stack.cluster.kind == "kind" else autoscaler_sync()
    bar("autoscaling", looks_every=looks, **up, down=down, requests=len(load.records), lost=len(load.failures()))
    assert load.failures() == []
    steps = [number for number, _ in itertools.groupby(int(one[0]) for one in seen if one[0])]
    top = steps.index(MOST)
    assert steps[: top + 1] == sorted(steps[: top + 1]), f"it went up and down on its way up: {steps}"
    assert steps[top:] == sorted(steps[top:], reverse=True), f"it went down and up on its way down: {steps}"
    told = [one["reason"] for one in kit.status("chat")["decisions"] if one["kind"] == "Scale"]
    assert any("HPA: RequestsInFlight" in one and "over 2 per replica" in one for one in told), told


def test_somebody_elses_adapter_is_left_alone(kit, chat):
    kit.apply("adapter.yaml")
    try:
        kit.eventually(lambda: scaling(kit), lambda reason: reason == "MetricsOwnedByAnother", 60)
        assert "is served by default/adapter" in kit.condition("chat", "ScalingActive")["message"]
        left = kit.stack.kubectl("get", "apiservice", OURS, "--ignore-not-found", "--output=name")
        assert left == "", "autoscalers of the cluster would ask ours instead"
    finally:
        kit.stack.kubectl("delete", "apiservice", "v1beta1.custom.metrics.k8s.io")
    kit.eventually(lambda: scaling(kit), lambda reason: reason == "MetricsFound", 90)


@pytest.mark.usefixtures("chat")
def test_kubectl_and_an_autoscaler_of_ones_own_scale_it_as_well(kit):
    kit.apply("own.yaml")
    kit.wait_ready("own")
    kit.kubectl("scale", "llmdep/own", "--replicas=2")
    kit.eventually(lambda: kit.row("own")["READY"], lambda ready: ready == "2/2", 240)
    kit.apply("own-hpa.yaml")
    kit.eventually(lambda: kit.row("own")["READY"], lambda ready: ready == "1/1", 120)
    told = [one["reason"] for one in kit.status("own")["decisions"] if one["kind"] == "Scale"]
    assert told[-2].endswith("kubectl scaled it to 2")
    assert told[-1].endswith("an HPA scaled it to 1")
    assert kit.condition("own", "ScalingActive") == {}


def reached(kit, number):
    """When the autoscaler had asked for so many replicas at least."""
    kit.eventually(lambda: replicas(kit), lambda asked: asked >= number, 120)
    return time.time()


def replicas(kit):
    return kit.get("llmdeployment", "chat")["spec"]["replicas"]


def scaling(kit):
    return kit.condition("chat", "ScalingActive").get("reason")
