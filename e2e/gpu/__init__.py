"""GPUs for machines without: a device plugin and an NVML whose figures a test decides about; all between is real."""

from e2e.gpu.gpus import FakeGpus, Gpu, offered

__all__ = ["FakeGpus", "Gpu", "offered"]
