"""Simulated nodes: an add-on to a control plane for questions that are about many pods and not about what runs in them.

KWOK (https://kwok.sigs.k8s.io) plays the kubelets. A pod that the scheduler puts on one of its nodes is Ready at once,
and gone at once when it is deleted.
"""

from e2e.cluster.kwok.nodes import simulated_nodes

__all__ = ["simulated_nodes"]
