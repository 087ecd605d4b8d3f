"""GPUs as the kubelet, NVML and the scheduler tell of them, from the driver to one line of `kubectl get`."""

import itertools
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime

import pytest

from e2e.gpu import Gpu, offered
from e2e.gpu.gpus import LOST, TOTAL_MIB
from e2e.kit import Load
from e2e.waiting import each_second

GPUS = [
    Gpu(f"GPU-{n}{n}", utilization=18 * n, used_mib=n * TOTAL_MIB // 8, celsius=40 + n, watts=100 * n)
    for n in range(1, 6)
]
A_MINUTE = 60


@dataclass(frozen=True)
class Crowded:
    began: float
    load: Load
    samples: list[int]
    """How many replicas were ready, each second."""
    end: Callable[[], None]


@pytest.fixture(scope="module")
def gpus(kit):
    with offered(kit.stack, *GPUS) as gpus:
        yield gpus


@pytest.fixture(scope="module")
def models(kit, gpus):
    kit.apply("models.yaml")
    for name in ("restless", "pair", "blind"):
        kit.wait_ready(name)


@pytest.fixture(scope="module")
def written(kit, gpus, models):
    """A GPU that works and rests in turns of a second; what is written about it, in the background of all tests."""
    kit.eventually(lambda: kit.row("restless")["GPU%"], bool, A_MINUTE)
    (uuid,) = devices(kit, "restless")
    work = itertools.cycle((5, 95))
    fields = (".metadata.resourceVersion", ".status.measured", ".status.gpu.utilization")
    changing = each_second(lambda: gpus.change(uuid, utilization=next(work)))
    with changing, kit.watched("llmdep", "restless", fields=fields) as seen:
        yield seen


def test_a_model_whose_nvml_is_not_there_serves_and_says_so(kit, models, written):
    why = kit.eventually(lambda: kit.condition("blind", "GPUHealthy"), lambda seen: seen.get("status") == "False", 60)
    assert why["message"].startswith("NVMLNotFound: ")
    assert kit.row("blind")["STATUS"] == "Serving"
    assert "harbour" in "".join(kit.ask(f"{kit.namespace}/blind", stream=True)["pieces"])


def test_a_replica_without_a_gpu_left_waits_for_one_and_gets_it(kit, models):
    kit.apply("twins.yaml")
    waiting = kit.eventually(lambda: kit.row("twins"), lambda row: row["STATUS"] == "WaitingForGPU", 60)
    assert "nvidia.com/gpu" in waiting["MESSAGE"]
    kit.kubectl("scale", "llmdep/blind", "--replicas=0")
    kit.wait_ready("twins")


@pytest.fixture(scope="module")
def crowded(kit, models):
    """An edit of `twins` where every GPU is taken; what comes of it, in the background of the tests that follow."""
    with ExitStack() as going:
        load = going.enter_context(kit.load(f"{kit.namespace}/twins", workers=1))
        samples = going.enter_context(each_second(lambda: ready(kit, "twins")))
        began = time.monotonic()
        kit.patch("twins", model={"contextLength": 512})
        kit.eventually(lambda: kit.row("twins")["STATUS"], lambda seen: seen == "WaitingForGPU", A_MINUTE)
        yield Crowded(began, load, samples, going.close)


def test_all_gpus_of_a_model_are_one_line(kit, gpus, crowded):
    first, second = (gpus[uuid] for uuid in devices(kit, "pair"))
    total = kit.eventually(lambda: kit.status("pair").get("gpu"), bool, A_MINUTE)
    assert total == {
        "utilization": (first.utilization + second.utilization) // 2,
        "memory": round(100 * (first.used_mib + second.used_mib) / (2 * TOTAL_MIB)),
        "devices": 2,
        "temperature": max(first.celsius, second.celsius),
        "powerWatts": first.watts + second.watts,
    }
    assert kit.row("pair")["GPU%"] == str(total["utilization"])
    healthy = kit.condition("pair", "GPUHealthy")
    assert (healthy["status"], healthy["message"]) == ("True", "2 GPUs of 1 replicas answer.")


def test_a_gpu_that_is_lost_is_told_and_stops_nothing(kit, gpus, crowded, bar):
    lost = devices(kit, "pair")[0]
    gpus.change(lost, error=LOST)
    until_told = seconds_until_healthy_is(kit, "pair", "False")
    assert kit.condition("pair", "GPUHealthy")["message"] == "GPULost: GPU is lost"
    kit.eventually(gpus.allocatable, lambda count: count == len(GPUS) - 1, 30)
    assert kit.row("pair")["STATUS"] == "Serving"
    assert "harbour" in "".join(kit.ask(f"{kit.namespace}/pair", stream=True)["pieces"])
    assert server(kit, "pair")["restartCount"] == 0
    bar("R24", lost_seconds=until_told)
    gpus.change(lost, error=0)
    kit.eventually(gpus.allocatable, lambda count: count == len(GPUS), 30)


def test_where_every_gpu_is_taken_one_replica_gives_way_after_a_minute(kit, crowded, bar):
    kit.eventually(lambda: kit.status("twins")["revision"], lambda seen: seen == {"stable": 2}, 4 * A_MINUTE)
    kit.wait_ready("twins")
    seconds = time.monotonic() - crowded.began
    crowded.end()
    load, samples = crowded.load, crowded.samples
    figures = {"requests": len(load.records), "failed": len(load.failures())}
    bar("full node", ready_min=min(samples), seconds=seconds, **figures)
    assert min(samples) >= 1
    assert load.failures() == []


def test_a_gpu_that_stays_well_is_told_to_be(kit, models):
    kit.eventually(lambda: kit.condition("pair", "GPUHealthy")["status"], lambda status: status == "True", 2 * A_MINUTE)


def test_what_changes_every_second_is_written_once_a_minute(kit, written, bar):
    kit.eventually(lambda: {when for _, when, _ in written}, lambda times: len(times) > 1, 2 * A_MINUTE)
    seen = list(written)
    times = [datetime.fromisoformat(when) for when in sorted({when for _, when, _ in seen})]
    versions = {version for version, _, _ in seen}
    apart = min((later - earlier).total_seconds() for earlier, later in itertools.pairwise(times))
    bar("R20", writes=len(versions) - 1, changes=len(times) - 1, seconds_apart=apart)
    assert apart >= A_MINUTE
    assert len(versions) == len(times), "nothing else is written at rest"
    assert {utilization for _, _, utilization in seen[-1:]} <= {"5", "95"}


def devices(kit, name):
    """The GPUs that the kubelet gave to a model's replica."""
    pod = replica(kit, name)["metadata"]["name"]
    return kit.kubectl("exec", pod, "--container=server", "--", "printenv", "NVIDIA_VISIBLE_DEVICES").strip().split(",")


def server(kit, name):
    (container,) = replica(kit, name)["status"]["containerStatuses"]
    return container


def replica(kit, name):
    (pod,) = replicas(kit, name)
    return pod


def replicas(kit, name):
    return kit.get("pods", f"--selector=moorage.dev/deployment={name}")["items"]


def ready(kit, name):
    """How many replicas are ready and not told to go."""
    staying = [pod for pod in replicas(kit, name) if "deletionTimestamp" not in pod["metadata"]]
    conditions = [one for pod in staying for one in pod["status"].get("conditions", ())]
    return sum((one["type"], one["status"]) == ("Ready", "True") for one in conditions)


def seconds_until_healthy_is(kit, name, wanted):
    began = time.monotonic()
    kit.eventually(lambda: kit.condition(name, "GPUHealthy")["status"], lambda status: status == wanted, A_MINUTE)
    return time.monotonic() - began
