"""Which device computes."""

from pathlib import Path
from typing import Literal

from moorage_runtime.engine.errors import StartError

Device = Literal["cpu", "cuda"]
GPU_FILES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""One of these exists where a GPU does: of NVIDIA's driver, and of Windows' for its Linux."""


def device_of(asked: Device | None) -> Device:
    """The device that was asked for; None is a GPU where there is one that this build of torch computes with.

    Raises:
        StartError: `cuda` is asked for, and there is none.
    """
    if asked == "cpu" or (asked is None and not any(file.exists() for file in GPU_FILES)):
        return "cpu"  # and torch, which takes seconds to load, is not needed to know it
    import torch  # noqa: PLC0415 - as above

    if torch.cuda.is_available():
        return "cuda"
    if asked is None:
        return "cpu"
    built = torch.version.cuda is not None
    why = "no GPU is visible to this process" if built else f"torch {torch.__version__} is built without CUDA"
    raise StartError(f"--device cuda: {why}")
