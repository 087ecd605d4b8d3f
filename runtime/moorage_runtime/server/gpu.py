"""What NVML knows about the GPUs that this process sees; its absence is an answer as well."""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import pynvml  # type: ignore[import-untyped]  # nvidia-ml-py ships no types

# A lost GPU can hold a call into the driver for ever; after this the last answer counts for nothing.
STALE_AFTER = 60.0
_MIB = 2**20
_NOT_READ_YET = {"available": False, "reason": "NotReadYet", "message": "NVML has not answered yet."}
_NO_DEVICES = {"available": False, "reason": "NoDevices", "message": "NVML answers, and shows this container no GPU."}

_REASONS = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "NVMLNotFound",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "DriverNotLoaded",
    pynvml.NVML_ERROR_GPU_IS_LOST: "GPULost",
    pynvml.NVML_ERROR_NO_PERMISSION: "NoPermission",
}


def read_gpus() -> dict[str, Any]:
    """One reading of all GPUs, or the reason why there is none. Blocks for milliseconds."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return _unavailable(error)
    try:
        count = pynvml.nvmlDeviceGetCount()
        devices = [_device(index) for index in range(count)]
    except pynvml.NVMLError as error:
        return _unavailable(error)
    finally:
        # What was read counts; a driver that cannot let go is told of by the next reading.
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()
    if not devices:
        return _NO_DEVICES
    return {"available": True, "devices": devices}


def _unavailable(error: pynvml.NVMLError) -> dict[str, Any]:
    return {"available": False, "reason": _REASONS.get(error.value, "NVMLError"), "message": str(error)}


def _device(index: int) -> dict[str, Any]:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    utilization = _supported(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle))
    power = _supported(lambda: pynvml.nvmlDeviceGetPowerUsage(handle))
    return {
        "index": index,
        "uuid": pynvml.nvmlDeviceGetUUID(handle),
        "name": pynvml.nvmlDeviceGetName(handle),
        "utilization": None if utilization is None else utilization.gpu,
        "memoryUtilization": None if utilization is None else utilization.memory,
        "memoryUsedMiB": memory.used // _MIB,
        "memoryTotalMiB": memory.total // _MIB,
        "temperature": _supported(lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)),
        "powerWatts": None if power is None else power / 1000,
    }


def _supported(read: Callable[[], Any]) -> Any:
    """A reading that some devices do not have (MIG slices: no utilisation), as None."""
    try:
        return read()
    except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_NoPermission):
        return None


class GpuMonitor:
    """Reads the GPUs in a thread of its own every few seconds; `latest` never waits."""

    def __init__(self, read: Callable[[], dict[str, Any]] = read_gpus, interval: float = 5.0) -> None:
        self._read = read
        self._interval = interval
        self._latest: dict[str, Any] = _NOT_READ_YET
        self._at = time.monotonic()
        self._stop = threading.Event()
        # A daemon, so that a call that hangs in the driver cannot keep the process alive.
        self._thread = threading.Thread(target=self._run, name="gpu-monitor", daemon=True)

    def start(self) -> None:
        """Begin reading."""
        self._thread.start()

    def stop(self) -> None:
        """Read no more; a reading under way is not waited for."""
        self._stop.set()

    def latest(self) -> dict[str, Any]:
        """The newest reading."""
        if time.monotonic() - self._at > STALE_AFTER:
            return {"available": False, "reason": "NVMLTimeout", "message": "NVML has not answered for a minute."}
        return self._latest

    def _run(self) -> None:
        while True:
            self._latest = self._read()
            self._at = time.monotonic()
            if self._stop.wait(self._interval):
                return
