"""NVML as it is, absent, and failing: never an exception, never a wait."""

import threading
from types import SimpleNamespace

import pynvml
import pytest

from moorage_runtime.server import gpu
from moorage_runtime.server.gpu import GpuMonitor, read_gpus


@pytest.fixture
def nvml(monkeypatch):
    """Two devices, the second without utilisation rates (as MIG slices are)."""

    def utilization(handle):
        if handle == 1:
            raise pynvml.NVMLError_NotSupported
        return SimpleNamespace(gpu=42, memory=7)

    answers = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(used=2**30, total=80 * 2**30),
        "nvmlDeviceGetUtilizationRates": utilization,
        "nvmlDeviceGetPowerUsage": lambda _: 123_400,
        "nvmlDeviceGetTemperature": lambda *_: 55,
        "nvmlDeviceGetUUID": lambda handle: f"GPU-{handle}",
        "nvmlDeviceGetName": lambda _: "NVIDIA H100",
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)
    return monkeypatch


def test_devices(nvml):
    reading = read_gpus()
    assert reading["available"] is True
    assert reading["devices"][0] == {
        "index": 0,
        "uuid": "GPU-0",
        "name": "NVIDIA H100",
        "utilization": 42,
        "memoryUtilization": 7,
        "memoryUsedMiB": 1024,
        "memoryTotalMiB": 81920,
        "temperature": 55,
        "powerWatts": 123.4,
    }
    assert reading["devices"][1]["utilization"] is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (pynvml.NVMLError_LibraryNotFound, "NVMLNotFound"),
        (pynvml.NVMLError_DriverNotLoaded, "DriverNotLoaded"),
        (pynvml.NVMLError_Unknown, "NVMLError"),
    ],
)
def test_without_nvml(nvml, error, reason):
    def fail():
        raise error

    nvml.setattr(pynvml, "nvmlInit", fail)
    reading = read_gpus()
    assert (reading["available"], reading["reason"]) == (False, reason)


def test_a_lost_gpu(nvml):
    def lost(_):
        raise pynvml.NVMLError_GpuIsLost

    nvml.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lost)
    assert read_gpus()["reason"] == "GPULost"


def test_a_driver_that_fails_to_let_go_does_not_end_the_monitor(nvml):
    def fail():
        raise pynvml.NVMLError_Unknown

    nvml.setattr(pynvml, "nvmlShutdown", fail)
    assert read_gpus()["available"] is True


def test_no_devices(nvml):
    nvml.setattr(pynvml, "nvmlDeviceGetCount", lambda: 0)
    reading = read_gpus()
    assert (reading["available"], reading["reason"]) == (False, "NoDevices")
    assert "no GPU" in reading["message"], "the condition says it to people"


def test_the_monitor_reads_again_and_again():
    readings = iter(range(1000))
    third = threading.Event()

    def read():
        number = next(readings)
        if number == 3:
            third.set()
        return {"number": number}

    monitor = GpuMonitor(read, interval=0.001)
    assert monitor.latest()["reason"] == "NotReadYet"
    monitor.start()
    assert third.wait(30)
    monitor.stop()
    assert monitor.latest()["number"] >= 2


def test_a_driver_that_never_answers_is_not_waited_for(monkeypatch):
    answer = threading.Event()
    monitor = GpuMonitor(lambda: {"late": answer.wait()})
    monitor.start()
    assert monitor.latest()["reason"] == "NotReadYet"
    monkeypatch.setattr(gpu, "STALE_AFTER", 0.0)
    assert monitor.latest()["reason"] == "NVMLTimeout"
    answer.set()
    monitor.stop()
