"""Addresses for what always listens on the same port."""

import itertools
import os
import random


def own_addresses(second):
    """Addresses 127.`second`.* that nobody beside has: not the other lane of this run, and hardly another run."""
    lane = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    third = random.randrange(lane, 250, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    return (f"127.{second}.{third}.{n}" for n in itertools.count(1))
