"""How a server was asked to run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

SchedulingPolicy = Literal["FCFS", "Priority", "MLFQ"]
Quantization = Literal["Int8", "Int4"]
Dtype = Literal["bfloat16", "float16", "float32"]
Device = Literal["cpu", "cuda"]
DEFAULT_MAX_RUNNING = 64
BODY_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """What is handed on to the engine's process; None leaves the choice to it."""

    model: Path
    max_running: int = DEFAULT_MAX_RUNNING
    scheduling_policy: SchedulingPolicy | None = None
    context_length: int | None = None
    dtype: Dtype | None = None
    quantization: Quantization | None = None
    device: Device | None = None
    threads: int | None = None
    kv_tokens: int | None = None
    tensor_parallel: int | None = None
    """Ranks that compute the model together; None: this process's engine alone, and no other field of it counts."""
    local_ranks: int | None = None
    """Of them in this pod."""
    rank: int | None = None
    """The first of them in this pod."""
    leader_address: str | None = None
    """Where rank 0 listens for the others."""

    @property
    def follows(self) -> bool:
        """Whether another pod leads: this one then answers nobody but Kubernetes."""
        return bool(self.rank)


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line of `moorage-runtime serve`, parsed."""

    engine: EngineOptions
    served_name: str
    max_waiting: int
    request_timeout: float | None
    """Seconds that any request may take, whatever it asks for."""
    drain_seconds: float | None
    """How long running answers may go on after SIGTERM; None: to their end."""
    host: str
    port: int
    max_body: int
    """Bytes of one request's body, and of all large ones at a time."""
    body_seconds: float = BODY_SECONDS
    """How long a body may be on its way."""
    termination_log: Path


def choices(of: object) -> tuple[str, ...]:
    """The values of one of the literal types above, for a command line."""
    return get_args(of)
