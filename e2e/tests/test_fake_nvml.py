"""What the runtime reads by NVML's own Python binding from the fake library is what the file says."""

import json
import os
import subprocess
import sys

import pytest

from e2e.gpu.gpus import LOST, Gpu
from e2e.gpu.image import build_library

READ = "import json; from moorage_runtime.server.gpu import read_gpus; print(json.dumps(read_gpus()))"


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nvml")
    build_library(folder)
    return folder


@pytest.fixture
def read(library, tmp_path):
    def read(*gpus, visible="all"):
        state = tmp_path / "gpus"
        state.write_text("".join(f"{gpu.line()}\n" for gpu in gpus))
        environ = {"LD_LIBRARY_PATH": str(library), "FAKE_NVML_STATE": str(state), "NVIDIA_VISIBLE_DEVICES": visible}
        argv = [sys.executable, "-c", READ]
        return json.loads(subprocess.run(argv, env=os.environ | environ, stdout=subprocess.PIPE, check=True).stdout)

    return read


def test_every_figure(read):
    assert read(Gpu("GPU-1", utilization=63, used_mib=40000, celsius=58, watts=410)) == {
        "available": True,
        "devices": [
            {
                "index": 0,
                "uuid": "GPU-1",
                "name": "NVIDIA H100 80GB HBM3",
                "utilization": 63,
                "memoryUtilization": 49,
                "memoryUsedMiB": 40000,
                "memoryTotalMiB": 81559,
                "temperature": 58,
                "powerWatts": 410.0,
            }
        ],
    }


def test_a_container_sees_its_own_gpus_only(read):
    found = read(Gpu("GPU-1"), Gpu("GPU-11"), Gpu("GPU-2"), visible="GPU-2,GPU-11")
    assert [device["uuid"] for device in found["devices"]] == ["GPU-11", "GPU-2"]


def test_a_lost_gpu_and_no_gpu(read):
    lost = {"available": False, "reason": "GPULost", "message": "GPU is lost"}
    assert read(Gpu("GPU-1"), Gpu("GPU-2", error=LOST)) == lost
    assert read(Gpu("GPU-1"), visible="GPU-3")["reason"] == "NoDevices"
