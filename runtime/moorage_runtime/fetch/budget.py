"""Whether a model may take the room that it wants; asked before its weights are fetched."""

import shutil
from collections.abc import Callable
from pathlib import Path

from moorage_runtime.fetch.errors import FetchFailedError, InvalidSourceError

Admit = Callable[[int], None]
"""Agrees to this many bytes, or raises."""
_GIB = 2**30


def require_room(into: Path, size: int, limit: int) -> None:
    """Agree to `size` bytes in `into`.

    Raises:
        InvalidSourceError: more than `limit`.
        FetchFailedError: more than the disk has.
    """
    if size > limit:
        raise InvalidSourceError(f"the model has {_gib(size)}; {_gib(limit)} are allowed (--max-gib).")
    free = shutil.disk_usage(into).free
    if size > free:
        raise FetchFailedError(f"the model has {_gib(size)}, but the volume at {into} has only {_gib(free)} left.")


def _gib(size: int) -> str:
    return f"{size / _GIB:.2f} GiB"
