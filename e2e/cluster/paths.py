"""Where the tool keeps things: what can be made again in the cache, what is alive in the state folder."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def cache_dir() -> Path:
    """Return the folder of what was built once and is kept: binaries, base images."""
    return _base("XDG_CACHE_HOME", ".cache")


def state_dir() -> Path:
    """Return the folder of what belongs to clusters that exist."""
    return _base("XDG_STATE_HOME", ".local/state")


def _base(variable: str, default: str) -> Path:
    folder = os.environ.get(variable)
    return (Path(folder) if folder else Path.home() / default) / "moorage"
