"""GPU and traffic figures: summed over replicas once, damped, and truthful when GPUs are lost."""

from dataclasses import replace
from datetime import timedelta

import pytest

from moorage_operator.plan.figures import Device, Gateway, PodFigures, PodGpu
from moorage_operator.plan.planner import plan

LOST = PodGpu(available=False, reason="GPULost", message="XID 79")


def gateway(*pods, name="g"):
    return Gateway(name, "2026-01-01T10:00:00Z", pods=pods)


def pod(uid="a", utilization=60, tokens=100.0, running=2, gpu=None):
    device = Device(utilization, 40_000, 80_000, 55, 300)
    gpu = gpu or PodGpu(available=True, devices=(device,))
    return PodFigures(uid, running=running, waiting=1, tokens_per_second=tokens, gpu=gpu)


@pytest.fixture
def status(make):
    """The status that is planned for what gateways tell, after a status that was written before."""

    def planned(*gateways, before=None, now=make.now, accelerator=None):
        more = {"accelerator": accelerator} if accelerator else {}
        snapshot = make.running(make.deployment(status=before, **more), make.ready())
        return plan(replace(snapshot, gateways=gateways, now=now), make.context)

    return planned


def test_figures_of_all_replicas_are_put_together_and_each_counts_once(status):
    written = status(gateway(pod("a", 50), pod("b", 70)), gateway(pod("a", 50), name="h")).status
    assert written["gpu"] == {"utilization": 60, "memory": 50, "devices": 2, "temperature": 55, "powerWatts": 600}
    assert written["traffic"] == {"tokensPerSecond": 200, "running": 4, "waiting": 2}
    assert written["measured"] == "2026-01-01T12:00:00Z"


@pytest.mark.parametrize(("utilization", "written"), [(64, 60), (66, 66), (54, 54)])
def test_a_small_change_is_not_written(make, status, utilization, written):
    before = status(gateway(pod(utilization=60))).status
    later = status(gateway(pod(utilization=utilization)), before=before, now=make.now + timedelta(minutes=5))
    assert later.status["gpu"]["utilization"] == written


def test_a_change_waits_for_the_minute(make, status):
    before = status(gateway(pod(tokens=100))).status
    soon = status(gateway(pod(tokens=500)), before=before, now=make.now + timedelta(seconds=20))
    assert soon.status["traffic"]["tokensPerSecond"] == 100
    assert soon.requeue_after == pytest.approx(40)
    later = status(gateway(pod(tokens=500)), before=before, now=make.now + timedelta(seconds=60))
    assert later.status["traffic"]["tokensPerSecond"] == 500


@pytest.mark.parametrize(
    ("gateways", "healthy", "reason"),
    [
        ((gateway(pod()),), "True", "GPUMeasured"),
        ((gateway(pod("a"), pod("b", gpu=LOST)),), "False", "GPUUnhealthy"),
        ((), "Unknown", "GPUNotMeasured"),
    ],
)
def test_the_health_of_gpus_is_a_condition_where_there_are_any(status, gateways, healthy, reason):
    conditions = status(*gateways, accelerator={"count": 1}).status["conditions"]
    found = next(one for one in conditions if one["type"] == "GPUHealthy")
    assert (found["status"], found["reason"]) == (healthy, reason)
    assert "GPUHealthy" not in {one["type"] for one in status(*gateways).status["conditions"]}


def test_a_lost_gpu_is_told_in_nvmls_words(status):
    conditions = status(gateway(pod(gpu=LOST)), accelerator={"count": 1}).status["conditions"]
    assert conditions[-1]["message"] == "GPULost: XID 79"


def test_a_gpu_that_comes_and_goes_is_well_only_after_a_minute(make, status):
    """Its failures are told at once; each of them written, and each recovery, would be a write every few seconds."""
    gpu = {"accelerator": {"count": 1}}

    def seen(planned):
        found = next(one for one in planned.status["conditions"] if one["type"] == "GPUHealthy")
        return found["status"], found["message"]

    failed = status(gateway(pod(gpu=LOST)), **gpu)
    before = failed.status
    soon = status(gateway(pod()), before=before, now=make.now + timedelta(seconds=20), **gpu)
    assert seen(soon) == seen(failed) == ("False", "GPULost: XID 79")
    assert soon.requeue_after == pytest.approx(40)
    later = status(gateway(pod()), before=before, now=make.now + timedelta(seconds=60), **gpu)
    assert seen(later)[0] == "True"
    again = status(gateway(pod(gpu=LOST)), before=later.status, now=make.now + timedelta(seconds=61), **gpu)
    assert seen(again)[0] == "False"


def test_a_lost_gpu_that_comes_and_goes_in_the_gateways_figures_is_told_once(make, status):
    """While its replica is not among them nobody knows; and that it works again is no news before a minute is over."""
    gpu = {"accelerator": {"count": 1}}

    def seen(planned):
        return next(one for one in planned.status["conditions"] if one["type"] == "GPUHealthy")

    failed = status(gateway(pod(gpu=LOST)), **gpu)
    for second, told in ((10, ()), (20, (pod(gpu=LOST),)), (30, ()), (40, (pod(),)), (59, ())):
        now = make.now + timedelta(seconds=second)
        later = status(gateway(*told), before=failed.status, now=now, **gpu)
        assert seen(later) == seen(failed)
        assert told == (pod(gpu=LOST),) or later.requeue_after == pytest.approx(60 - second)
    later = status(gateway(), before=failed.status, now=make.now + timedelta(seconds=60), **gpu)
    assert seen(later)["status"] == "Unknown"


def test_replicas_that_ask_for_no_gpu_say_nothing_about_the_health_of_gpus(make):
    """Those that an edit puts on GPUs serve until the others are ready, and may be kept warm after that."""
    before = make.running(make.deployment())
    old, new = make.ready(name="old"), make.ready(revision=2, name="new")
    old["metadata"]["uid"], new["metadata"]["uid"] = "old", "new"
    none = PodGpu(available=False, reason="NVMLNotFound", message="NVML Shared Library Not Found")
    edited = make.deployment(accelerator={"count": 1})
    children = [one for kind in before.children.values() for one in kind]

    def health(*pods):
        snapshot = replace(make.snapshot(edited, *children, old, new), gateways=(gateway(pod("old", gpu=none), *pods),))
        conditions = plan(snapshot, make.context).status["conditions"]
        return next(one["reason"] for one in conditions if one["type"] == "GPUHealthy")

    assert health() == "GPUNotMeasured"
    assert health(pod("new")) == "GPUMeasured"
    assert health(pod("new", gpu=LOST)) == "GPUUnhealthy"


def timed(make, **status):
    """A pod that was made at 11:00:00, got a node after 2 s and its model after 30 s more."""
    fetched = {"state": {"terminated": {"exitCode": 0, "finishedAt": "2026-01-01T11:00:32Z", "message": "{}"}}}
    found = make.on_node(fetch=fetched, **status)
    found["metadata"]["uid"] = "a"
    found["status"]["conditions"][0]["lastTransitionTime"] = "2026-01-01T11:00:02Z"
    return found


def test_the_last_start_tells_how_long_the_next_will_take(make):
    up = timed(make)
    up["status"]["conditions"][1] |= {"status": "True", "lastTransitionTime": "2026-01-01T11:01:12Z"}
    first = plan(make.running(make.deployment(), up), make.context).status
    assert first["startup"] == {"seconds": {"Scheduling": 2, "FetchingModel": 30, "LoadingWeights": 40}}
    next_one = make.pod(name="q")
    next_one["metadata"] |= {"uid": "b", "creationTimestamp": "2026-01-01T11:59:00Z"}
    second = plan(make.running(make.deployment(status=first), next_one), make.context).status
    assert second["startup"]["phase"] == "Scheduling"
    assert second["startup"]["estimatedReady"] == "2026-01-01T12:00:12Z"
