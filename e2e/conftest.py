"""One cluster with Moorage on it for the whole session, and a namespace of its own for each case."""

import os
from collections.abc import Iterator

import pytest

from e2e.cluster.choose import choose
from e2e.cluster.progress import Progress
from e2e.kit import Kit
from e2e.stack import Stack, bring_up

LANE = os.environ.get("PYTEST_XDIST_WORKER", "")
"""Which of several processes this is: each has a cluster of its own, so that no case stands in another's way."""
CLUSTER = "-".join(filter(None, (os.environ.get("MOORAGE_CLUSTER") or "moorage-e2e", LANE)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here, so that `-m 'not e2e'` leaves it out."""
    for item in items:
        item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """A cluster of the provider that MOORAGE_PROVIDER names (or that works here); MOORAGE_KEEP=1 leaves it up.

    MOORAGE_CLUSTER names one that may be up already, such as the demo's; one that was is left up.
    """
    progress = Progress()
    cluster = choose(CLUSTER)
    keep = bool(os.environ.get("MOORAGE_KEEP")) or ("MOORAGE_CLUSTER" in os.environ and cluster.exists())
    try:
        yield bring_up(cluster, progress)
    finally:
        if not keep:
            cluster.down(progress)


@pytest.fixture(scope="module")
def kit(stack: Stack, request: pytest.FixtureRequest) -> Iterator[Kit]:
    """A namespace named after the case, and the verbs that cases are written in."""
    kit = Kit(stack, namespace=request.path.parent.name.replace("_", "-"), directory=request.path.parent)
    kit.create_namespace()
    yield kit
    kit.delete_namespace(wait=False)  # what comes next has a namespace of its own
