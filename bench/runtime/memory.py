"""How fast this machine reads memory: what a step that does nothing but read the weights would take."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

_PASSES = 20


def read_bandwidth(size: int, threads: int) -> float:
    """Bytes per second that `threads` read together from a buffer of `size` bytes, each its own part of it.

    The best of some passes over it, because what else runs on a machine only ever slows one down. The buffer is as
    large as the weights, so that caches help the probe as much as they help a step.
    """
    parts = np.array_split(np.ones(size // 8, np.int64), threads)
    with ThreadPoolExecutor(threads) as pool:
        best = min(_seconds(pool, parts) for _ in range(_PASSES))
    return size / best


def _seconds(pool: ThreadPoolExecutor, parts: list["np.ndarray[tuple[int], np.dtype[np.int64]]"]) -> float:
    began = time.perf_counter()
    # numpy lets go of the interpreter while it sums, and sums faster than one core reads.
    list(pool.map(np.sum, parts))
    return time.perf_counter() - began
