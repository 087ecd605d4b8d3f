"""spec.rollout: how one revision takes over from another, what may hold it up, and what remains of the one before."""

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, StringConstraints, WithJsonSchema

from moorage_api.base import ApiModel
from moorage_api.duration import DURATION, MAX_DURATION_LENGTH, PERCENTAGE, Duration, Percentage
from moorage_api.lists import ATOMIC
from moorage_api.quantity import integer_as_text
from moorage_api.rules import Matches, Rule

_Int32 = {"format": "int32"}

Share = Annotated[
    str,
    BeforeValidator(integer_as_text),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": MAX_DURATION_LENGTH}),
    Matches(
        "(?:0|[1-9][0-9]{0,2}|1000)|(?:0|[1-9][0-9]?|100)%",
        "write a number of replicas up to 1000, such as 1, or a percentage of spec.replicas up to 100%, such as 25%",
        subject="string(self)",
    ),
]
"""So many replicas, as a Deployment has them: `1`, or `25%`."""


class Step(ApiModel):
    """One stage of a canary."""

    weight: Annotated[int, Field(ge=1, le=99, json_schema_extra=_Int32)]
    """Share of new requests that the new revision gets, in percent. It runs at least this share of spec.replicas."""

    hold: Duration = "0s"
    """How long at least the step lasts once the weight is set, such as `2m`."""


class Gate(ApiModel):
    """A figure of the new revision that must be good enough before the rollout goes on. The gateways measure it."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.max) != has(self.maxRegression)",
            "a gate needs one of max and maxRegression: write max for a fixed bound, such as 1% or 2s, "
            "or maxRegression to compare with the revision that serves, such as 20%",
        ),
        Rule(
            f"!has(self.max) || self.max.matches(self.metric == 'ErrorRate' ? '^{PERCENTAGE}$' : '^{DURATION}$')",
            "max is a percentage for ErrorRate, such as 1%, and a span of time for every other metric, such as 500ms",
        ),
        Rule(
            "!has(self.maxRegression) || self.metric != 'ErrorRate'",
            "ErrorRate cannot be compared with a revision that has no errors; write max, such as 1%",
        ),
    )

    metric: Literal[
        "ErrorRate",
        "TimeToFirstTokenP50",
        "TimeToFirstTokenP95",
        "TimeToFirstTokenP99",
        "InterTokenLatencyP50",
        "InterTokenLatencyP95",
        "InterTokenLatencyP99",
    ]
    """What is measured, since the step began: the share of requests that failed, or a percentile of the time to the
    first token or of the time between tokens."""

    max: (
        Annotated[
            str,
            StringConstraints(max_length=MAX_DURATION_LENGTH),
            Matches(f"{PERCENTAGE}|{DURATION}", "write a percentage such as 1%, or a span of time such as 500ms"),
        ]
        | None
    ) = None
    """Most that is allowed: `1%` for ErrorRate, `500ms` for the others."""

    max_regression: Percentage | None = None
    """How much worse than the revision that serves it may be, such as `20%`. Compared over the same time; of a
    BlueGreen rollout with what that revision did before the switch."""

    min_requests: Annotated[int, Field(ge=1, le=1_000_000, json_schema_extra=_Int32)] = 20
    """Finished requests, and for times streams, below which nothing is judged; the rollout waits for them."""


class KeepWarm(ApiModel):
    """What remains of the previous revision, so that going back takes seconds."""

    replicas: Annotated[int, Field(ge=1, le=1000, json_schema_extra=_Int32)] = 1
    """How many of its replicas go on running without requests."""

    for_: Annotated[Duration, Field(alias="for")] = "30m"
    """For how long. Of a BlueGreen rollout: how long the old revision stays whole after the switch, while gates are
    judged."""


class Rollout(ApiModel):
    """How a new revision takes over."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.strategy == 'Canary' || !has(self.steps) || size(self.steps) == 0",
            "steps belong to a canary; remove them, or set spec.rollout.strategy to Canary",
        ),
        Rule(
            "self.strategy != 'Canary' || (has(self.steps) && size(self.steps) > 0)",
            "a canary needs steps, such as steps: [{weight: 5, hold: 2m}, {weight: 50, hold: 5m}]",
        ),
        Rule(
            "!has(self.steps) || (self.steps.map(step, step.weight).isSorted() && "
            "self.steps.all(a, self.steps.exists_one(b, a.weight == b.weight)))",
            "the weights of steps must rise from step to step, such as 5, 25, 50; after the last one comes 100",
        ),
        Rule(
            "self.strategy == 'RollingUpdate' || !(has(self.maxSurge) || has(self.maxUnavailable))",
            "maxSurge and maxUnavailable belong to a RollingUpdate; Canary and BlueGreen start what they need beside "
            "what serves; remove them",
        ),
        Rule(
            "!(has(self.maxSurge) && has(self.maxUnavailable)) || "
            "!(string(self.maxSurge) in ['0', '0%'] && string(self.maxUnavailable) in ['0', '0%'])",
            "maxSurge and maxUnavailable are both 0, so no replica could ever be replaced; raise one of them, or "
            "remove both to let the operator choose",
        ),
    )

    strategy: Literal["RollingUpdate", "Canary", "BlueGreen"] = "RollingUpdate"
    """`RollingUpdate`: one replica after the other, each with its share of requests. `Canary`: by the weights of
    `steps`, with all old replicas kept until the end. `BlueGreen`: all new replicas first, then all requests at
    once."""

    max_surge: Share | None = None
    """Replicas above spec.replicas that a RollingUpdate may run, as a number or in percent of spec.replicas, rounded
    up. Without this and maxUnavailable the operator chooses:
    one more; where no node has room for it for a minute and at least two replicas serve, one less instead."""

    max_unavailable: Share | None = None
    """Replicas below spec.replicas that a RollingUpdate may leave, as a number or in percent of spec.replicas, rounded
    down. Where nothing could move then: beside a maxSurge of 0 it is 1; without maxSurge one more is started, and waits
    for room. Default beside maxSurge: 0, or 1 where maxSurge is 0."""

    steps: Annotated[tuple[Step, ...], Field(max_length=20), ATOMIC] = ()
    """The stages of a canary, with rising weights; after the last one the new revision gets everything."""

    gates: Annotated[tuple[Gate, ...], Field(max_length=8), ATOMIC] = ()
    """What must hold before a step is left. Too little measured: the rollout waits. Failed: it goes back, if
    autoRollback."""

    auto_rollback: bool = True
    """Whether a revision that fails a gate, keeps crashing or misses the deadline is given up, and all requests go back
    at once. Otherwise the rollout stops where it is and says so."""

    progress_deadline: Duration = "15m"
    """How long a rollout may go without a further replica that answers requests. The clock stops while the rollout
    holds, is paused, waits for a gate, for a gateway or for room on nodes."""

    keep_warm: KeepWarm | None = None
    """What remains of the previous revision after a rollout. Default: nothing."""

    revision_history_limit: Annotated[int, Field(ge=1, le=100, json_schema_extra=_Int32)] = 10
    """How many revisions are remembered. Those with replicas and the target of spec.rollbackTo are never forgotten."""

    paused: bool = False
    """Whether a rollout stops where it is. Scaling, and going back, work meanwhile."""


class RollbackTo(ApiModel):
    """An earlier revision that shall serve."""

    revision: Annotated[int, Field(ge=1, json_schema_extra=_Int32)]
    """Its number; status.revisions and `kubectl get controllerrevisions` have those that are remembered."""
