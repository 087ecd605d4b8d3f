"""The model room: the only one that imports torch. Loading, forward pass, KV cache, sampler, engine process."""

import os

# OpenMP reads its settings when torch is loaded, so they are set before any module here does that. By default a compute
# thread that waits for the other spins for milliseconds; when they share their processors with other programs, it keeps
# the very thread it waits for from running. Two servers with two threads each on two processors, 4 streams each: 2 x 52
# tokens/s with 2,000 turns, 2 x 31 with 10,000, 2 x 15 with 30,000. The price where one server is alone: 22 tokens/s
# for one stream instead of 26 and 29. Pods share nodes, so the small number is the default; the environment may differ.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
