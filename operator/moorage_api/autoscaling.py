"""spec.autoscaling: between which numbers, by which figures and how fast the number of replicas follows the load.

The names are those of a HorizontalPodAutoscaler (autoscaling/v2), because that is what the operator makes of them:
https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/horizontal-pod-autoscaler-v2/
"""

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from moorage_api.base import ApiModel
from moorage_api.duration import DURATION, Duration
from moorage_api.lists import ATOMIC, map_by
from moorage_api.quantity import MAX_QUANTITY_LENGTH, integer_as_text
from moorage_api.rules import Matches, Rule

_Int32 = {"format": "int32"}

Metric = Literal[
    "RequestsInFlight",
    "QueueDepth",
    "KVCacheUtilization",
    "GPUUtilization",
    "CPUUtilization",
    "TokensPerSecond",
]
"""What can be measured of a model's replicas; the gateways serve each under this name."""

AverageValue = Annotated[
    str,
    BeforeValidator(integer_as_text),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": MAX_QUANTITY_LENGTH}),
    Matches(
        "0*[1-9][0-9]{0,8}(?:[.][0-9]{1,3})?|0+[.](?:[1-9][0-9]{0,2}|0[1-9][0-9]?|00[1-9])|0*[1-9][0-9]{0,11}m",
        "write a number above 0, such as 8, 0.5 or 500m, with at most 9 digits and 3 decimals",
        subject="string(self)",
    ),
]
"""So much per replica: more than nothing, in thousandths at the finest, which is what a metrics API can say."""


class Target(ApiModel):
    """A figure to hold at so much per replica."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!self.metric.endsWith('Utilization') || !isQuantity(string(self.averageValue)) || "
            "quantity(string(self.averageValue)).compareTo(quantity('100')) <= 0",
            "a utilization is 0 to 100 in each replica, so a target above 100 would never add one; "
            "write a percentage such as 80",
        ),
    )

    metric: Metric
    """`RequestsInFlight`: requests that are computed or wait, in the replicas and at the gateways. `QueueDepth`: those
    of them that wait. `KVCacheUtilization`, `GPUUtilization`, `CPUUtilization`: percent of each replica's KV cache, of
    its GPUs' time and of its CPU. `TokensPerSecond`: tokens generated."""

    average_value: AverageValue
    """How much of it one replica should have: with more, replicas are added, with less, they are removed."""


class ScalingPolicy(ApiModel):
    """How much may change within a while."""

    type: Literal["Pods", "Percent"]
    """Whether `value` counts replicas or is a percentage of them."""

    value: Annotated[int, Field(ge=1, json_schema_extra=_Int32)]
    """How much."""

    period_seconds: Annotated[int, Field(ge=1, le=1800, json_schema_extra=_Int32)]
    """Within how many seconds."""


class ScalingRules(ApiModel):
    """How fast the number changes in one direction."""

    stabilization_window_seconds: Annotated[int, Field(ge=0, le=3600, json_schema_extra=_Int32)] | None = None
    """For how many seconds back the most careful recommendation counts. Default: 0 up, 300 down."""

    select_policy: Literal["Max", "Min", "Disabled"] | None = None
    """Which of several policies counts: the one that allows the most change, the least, or none at all. Default:
    Max."""

    policies: Annotated[tuple[ScalingPolicy, ...], Field(max_length=8), ATOMIC] = ()
    """Bounds of the change. Default: up, the larger of 4 replicas and 100 percent in 15 seconds; down, no bound."""


class Behavior(ApiModel):
    """How fast the number follows the figures; handed to the HorizontalPodAutoscaler as it is."""

    scale_up: ScalingRules | None = None
    """Upwards."""

    scale_down: ScalingRules | None = None
    """Downwards."""


class Budget(ApiModel):
    """What the deployment may take at most, whatever its load and its rollouts ask for."""

    accelerators: Annotated[int, Field(ge=1, json_schema_extra=_Int32)]
    """Most accelerators of all its replicas together: those that serve, those that a rollout starts beside them and
    those that are kept warm. Warm replicas go first, then the rollout replaces instead of adding, then a higher number
    of replicas is cut."""


class Autoscaling(ApiModel):
    """Who writes spec.replicas: a HorizontalPodAutoscaler that the operator makes."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "minReplicas is more than maxReplicas; raise maxReplicas or lower minReplicas",
        ),
        Rule(
            "(self.minReplicas == 0) == has(self.idleAfter)",
            "idleAfter belongs to minReplicas 0: write both to let an unused model go to zero, "
            "such as minReplicas: 0 and idleAfter: 10m, or neither",
        ),
        Rule(
            f"!has(self.idleAfter) || !self.idleAfter.matches('^(?:{DURATION})$') || "
            "duration(self.idleAfter) >= duration('1m')",
            "idleAfter must be at least 1m, because a model takes its time to start again",
        ),
    )

    min_replicas: Annotated[int, Field(ge=0, json_schema_extra=_Int32)] = 1
    """Fewest replicas. 0: after idleAfter without a request nothing runs, and the next request starts a replica and
    waits for it at the gateway."""

    max_replicas: Annotated[int, Field(ge=1, json_schema_extra=_Int32)]
    """Most replicas; a rollout may start others beside them."""

    targets: Annotated[tuple[Target, ...], Field(min_length=1, max_length=8), map_by("metric")]
    """What to hold at how much per replica. Of several targets the one that asks for the most replicas counts."""

    idle_after: Duration | None = None
    """How long no request may have been there before the model goes to zero, such as `10m`; at least `1m`. Only with
    minReplicas 0."""

    behavior: Behavior | None = None
    """How fast the number follows the figures. Default: up at once, down after five minutes."""

    budget: Budget | None = None
    """What the deployment may take at most."""
