"""The model room: the only one that imports torch. Loading, forward pass, KV cache, sampler, engine process."""

import os

# OpenMP reads its settings when torch is loaded, so they are set before any module here does that. By default a compute
# thread that waits for the other spins for milliseconds; when both share their processors with other programs, it keeps
# the very thread it waits for from running (measured with four times more programs than processors: 6 tokens/s against
# 79). So many turns, about 0.1 ms, cover the gaps between the products of a step.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
