"""The accelerators of a revision: what each of its replicas is given, and whether they are what a pod waits for."""

from dataclasses import dataclass
from typing import Final

from moorage_api import llmdeployment
from moorage_operator.manifest import Manifest, dig
from moorage_operator.plan.remembered import remembered

_THEIR_NODES: Final = "Pod's node affinity"
"""What the scheduler says of nodes that the pod itself does not want. A claim may be far from the nodes that would do:
"volume node affinity conflict" is another matter, of which no free accelerator changes anything."""


@dataclass(frozen=True)
class Accelerators:
    """Those of one revision, whatever spec asks for by now."""

    resource: str
    """As nodes offer them, such as `nvidia.com/gpu`."""
    count: int
    """How many each replica is given."""

    @classmethod
    def of(cls, data: Manifest | None) -> "Accelerators | None":
        """As the revision's record has them (its `data`); None where its replicas have none."""
        recorded = remembered(llmdeployment.Accelerator, dig(data, "spec", "accelerator"))
        return None if recorded is None else cls(recorded.resource, recorded.count)

    def lacked(self, words: str) -> bool:
        """Whether the scheduler's words name them, or the nodes that have them, as what a pod is without."""
        return self.resource in words or _THEIR_NODES in words
