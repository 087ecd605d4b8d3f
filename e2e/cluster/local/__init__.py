"""The local provider: the real parts of Kubernetes as processes of this machine, in namespaces of their own."""

from collections.abc import Iterator

from e2e.cluster.local.place import existing
from e2e.cluster.local.provider import LocalProvider

__all__ = ["LocalProvider", "every_cluster"]


def every_cluster() -> Iterator[LocalProvider]:
    """Return every local cluster that left something on disk."""
    return (LocalProvider(place.name) for place in existing())
