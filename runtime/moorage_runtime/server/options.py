"""How a server was asked to run."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line of `moorage-runtime serve`, parsed."""

    model: Path
    served_name: str
    context_length: int | None
    max_running: int
    max_waiting: int
    dtype: str | None
    host: str
    port: int
    max_body: int
    """Bytes."""
    termination_log: Path
