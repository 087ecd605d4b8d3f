"""Fake GPUs on a cluster's node, for as long as a test needs them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from e2e.cluster.progress import Progress
from e2e.gpu.image import ensure_image
from e2e.stack import Stack
from e2e.waiting import eventually

PRODUCT: Final = "NVIDIA-H100-80GB-HBM3"
TOTAL_MIB: Final = 81559
RESOURCE: Final = "nvidia.com/gpu"
LOST: Final = 15
"""NVML_ERROR_GPU_IS_LOST: it fell off the bus."""
_NAMESPACE: Final = "fake-gpu"
_MANIFEST: Final = Path(__file__).with_name("plugin.yaml")
_PLUGIN: Final = ("daemonset/fake-gpu", f"--namespace={_NAMESPACE}")
# What NVIDIA's GPU feature discovery would say of such a node.
_LABELS: Final = {"nvidia.com/gpu.product": PRODUCT, "nvidia.com/gpu.memory": str(TOTAL_MIB)}


@dataclass(frozen=True)
class Gpu:
    """One GPU, as NVML tells of it."""

    uuid: str
    utilization: int = 0
    """Percent."""
    used_mib: int = 0
    celsius: int = 30
    watts: int = 70
    error: int = 0
    """What NVML answers about it (an nvmlReturn_t); 0: the figures."""

    def line(self) -> str:
        """As the fake NVML reads it."""
        memory_percent = 100 * self.used_mib // TOTAL_MIB
        figures = (self.utilization, memory_percent, TOTAL_MIB, self.used_mib, self.celsius, 1000 * self.watts)
        return "|".join(map(str, (self.uuid, "NVIDIA H100 80GB HBM3", *figures, self.error)))


class FakeGpus:
    """The GPUs of the node, each by its uuid; safe to use from several threads."""

    def __init__(self, stack: Stack, gpus: tuple[Gpu, ...]) -> None:
        self._stack = stack
        self._gpus = {gpu.uuid: gpu for gpu in gpus}
        self._changing = threading.Lock()
        self._tell()

    def __getitem__(self, uuid: str) -> Gpu:
        """What is told of one now."""
        return self._gpus[uuid]

    def change(self, uuid: str, **figures: Any) -> None:
        """Tell these figures of a GPU from now on."""
        with self._changing:
            self._gpus[uuid] = replace(self._gpus[uuid], **figures)
            self._tell()

    def allocatable(self) -> int:
        """How many the node has for pods, those in use among them."""
        (node,) = self._stack.get("nodes")["items"]
        return int(node["status"]["allocatable"].get(RESOURCE, 0))

    def _tell(self) -> None:
        lines = "".join(f"{gpu.line()}\n" for gpu in self._gpus.values())
        self._stack.kubectl("exec", "--stdin", *_PLUGIN, "--", "/fakegpu", "set", stdin=lines)


@contextmanager
def offered(stack: Stack, *gpus: Gpu) -> Iterator[FakeGpus]:
    """Let the cluster's node, which has no GPU, have these for as long as the context lasts."""
    image = ensure_image(Progress())
    stack.cluster.load_images([image], Progress())
    (node,) = stack.get("nodes")["items"]
    named = ("label", "--overwrite", "node", node["metadata"]["name"])
    stack.kubectl("apply", "--filename=-", stdin=f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {_NAMESPACE}}}\n")
    try:
        manifest = _MANIFEST.read_text().replace("IMAGE", image.reference)
        stack.kubectl("apply", f"--namespace={_NAMESPACE}", "--filename=-", stdin=manifest)
        stack.kubectl("rollout", "status", *_PLUGIN, "--timeout=60s")
        stack.kubectl(*named, *(f"{label}={value}" for label, value in _LABELS.items()))
        fake = FakeGpus(stack, gpus)
        eventually(fake.allocatable, lambda count: count == len(gpus), 60)
        yield fake
    finally:
        stack.kubectl(*named, *(f"{label}-" for label in _LABELS))
        stack.kubectl("delete", "namespace", _NAMESPACE, "--timeout=60s")
