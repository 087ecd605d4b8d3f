"""spec.sharding: one replica that several processes compute together, in one pod or over several."""

from typing import Annotated, ClassVar

from pydantic import Field

from moorage_api.base import ApiModel
from moorage_api.rules import Rule

_Ranks = Annotated[int, Field(ge=1, le=64, json_schema_extra={"format": "int32"})]


class Sharding(ApiModel):
    """How one replica is divided."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.tensorParallel % self.pods == 0",
            "each pod of a replica gets as many ranks as the others; "
            "make spec.sharding.tensorParallel a multiple of spec.sharding.pods",
        ),
    )

    tensor_parallel: _Ranks = 1
    """Ranks (processes) that compute one replica together, each with its part of every layer. With spec.accelerator
    each takes an accelerator of its own."""

    pods: _Ranks = 1
    """Pods that the ranks of one replica are in, equally many in each. They start, serve and go together: a replica
    answers requests while all of its pods are ready. More than 1 for a model that no single node can hold."""
