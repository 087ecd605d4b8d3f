"""What an engine is asked for."""

from dataclasses import dataclass
from pathlib import Path

from moorage_runtime.model.device import Device
from moorage_runtime.model.quantized import Quantization


@dataclass(frozen=True, slots=True)
class Settings:
    """What the engine is asked for."""

    model: Path
    max_running: int
    context_length: int | None = None
    """None: as many tokens as the model was trained for."""
    dtype: str | None = None
    """`bfloat16`, `float16` or `float32`; None is what the checkpoint has, where the device computes it."""
    quantization: Quantization | None = None
    """Bits to round the matrices of a checkpoint to that is not quantised yet."""
    threads: int | None = None
    """None: what the control group allows."""
    kv_tokens: int | None = None
    """Size of the KV cache; None measures what fits the memory limit."""
    device: Device | None = None
    """None: a GPU where there is one."""
    scheduling_policy: str = "FCFS"
    """See `moorage_runtime.engine.policy`."""
