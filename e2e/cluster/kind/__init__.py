"""Clusters made by kind: on the Docker engine that answers, else on one that is started for the cluster alone."""

from e2e.cluster.kind.provider import KindProvider, every_cluster

__all__ = ["KindProvider", "every_cluster"]
