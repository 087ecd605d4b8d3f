"""Accelerators of a replica: how many, on which nodes.

The nodes are chosen by the labels of NVIDIA's GPU feature discovery: `nvidia.com/gpu.product` and
`nvidia.com/gpu.memory` (MiB of one device).
Source: https://github.com/NVIDIA/k8s-device-plugin (docs/gpu-feature-discovery)
"""

import math
from typing import Any, Final

from moorage_api.llmdeployment import Accelerator
from moorage_api.quantity import quantity_value

PRODUCT_LABEL: Final = "nvidia.com/gpu.product"
MEMORY_LABEL: Final = "nvidia.com/gpu.memory"
_MIB: Final = 2**20


def limits(accelerator: Accelerator | None) -> dict[str, str]:
    """The extended resources of the server container."""
    return {} if accelerator is None else {accelerator.resource: str(accelerator.count)}


def placement(accelerator: Accelerator | None) -> dict[str, Any]:
    """The parts of the pod's spec that bring it to the right node."""
    if accelerator is None:
        return {}
    # Nodes with accelerators usually repel everything else by a taint that is named after the resource.
    tolerations = [{"key": accelerator.resource, "operator": "Exists", "effect": "NoSchedule"}]
    expressions = _expressions(accelerator)
    if not expressions:
        return {"tolerations": tolerations}
    terms = {"nodeSelectorTerms": [{"matchExpressions": expressions}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    return {"tolerations": tolerations, "affinity": affinity}


def _expressions(accelerator: Accelerator) -> list[dict[str, Any]]:
    expressions: list[dict[str, Any]] = []
    if accelerator.products:
        expressions.append({"key": PRODUCT_LABEL, "operator": "In", "values": list(accelerator.products)})
    if accelerator.min_memory is not None:
        mebibytes = math.ceil(quantity_value(accelerator.min_memory) / _MIB)
        # There is no "at least" among node selectors, and `Gt` compares integers.
        expressions.append({"key": MEMORY_LABEL, "operator": "Gt", "values": [str(mebibytes - 1)]})
    return expressions
