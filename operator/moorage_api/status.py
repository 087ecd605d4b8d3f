"""status of an LLMDeployment: what is, and why; written by the operator only."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from moorage_api.base import ApiModel
from moorage_api.conditions import ConditionStatus
from moorage_api.frozen import FREE
from moorage_api.lists import ATOMIC, map_by

_Count = Annotated[int, Field(ge=0, json_schema_extra={"format": "int32"})]
_BigCount = Annotated[int, Field(ge=0, json_schema_extra={"format": "int64"})]


class Condition(ApiModel):
    """One statement of the operator, after Kubernetes' API conventions."""

    type: Annotated[str, StringConstraints(max_length=316)]
    """What the statement is about: Accepted, Available, Progressing, Ready, Stalled, GPUHealthy or
    ScalingActive."""

    status: ConditionStatus
    """True, False or Unknown."""

    observed_generation: Annotated[int, Field(ge=0, json_schema_extra={"format": "int64"})]
    """The metadata.generation that the statement is about."""

    last_transition_time: datetime
    """When status last changed."""

    reason: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
    """Why, in one word that programs can compare."""

    message: Annotated[str, StringConstraints(max_length=32768)]
    """Why, and what to do next, for people."""


class RevisionPointers(ApiModel):
    """Which revisions matter now."""

    stable: _Count | None = None
    """Number of the revision that has the traffic."""

    candidate: _Count | None = None
    """Number of the revision that is being rolled out."""


class RevisionStatus(ApiModel):
    """One revision that has, or may soon have, replicas."""

    number: _Count
    """The revision's number; it never changes."""

    role: Literal["stable", "candidate", "warm", "retired", "failed"] = "candidate"
    """What it is: `stable` holds the traffic, `candidate` is being rolled out, `warm` is kept to go back to, `failed`
    was given up, `retired` takes no part any more."""

    reason: str | None = None
    """Why it was given up, in one word."""

    message: str | None = None
    """Why it was given up, for people."""

    weight: Annotated[int, Field(ge=0, le=100, json_schema_extra={"format": "int32"})]
    """Its share of new requests, in percent."""

    replicas: _Count = 0
    """Replicas it shall have now."""

    ready: _Count = 0
    """Replicas of it that answer requests."""

    routable: _Count = 0
    """Replicas of it that answer requests and that a gateway has in its table."""

    source: str | None = None
    """Where its model comes from, a branch or tag already replaced by the commit that it was."""

    model_digest: str | None = None
    """Digest of the model's content."""

    image: str | None = None
    """The engine's image."""

    created: datetime
    """When the revision was made."""


class Progress(ApiModel):
    """The clock of spec.rollout.progressDeadline."""

    routable: _Count = 0
    """Most replicas of the candidate that were routable."""

    elapsed: _Count = 0
    """Seconds without a further one, up to `since`."""

    since: datetime | None = None
    """When the clock was started again; absent while it stands."""


class WindowFigures(ApiModel):
    """What a gateway had counted when the step began, so that only what came after is judged."""

    gateway: str
    """The gateway's pod."""

    started: str
    """When it started; its figures begin there."""

    number: _Count
    """The revision."""

    requests: _BigCount = 0
    """Finished requests."""

    errors: _BigCount = 0
    """Failed ones."""

    ttft: Annotated[tuple[_BigCount, ...], ATOMIC] = ()
    """Times to first token, by bucket."""

    itl: Annotated[tuple[_BigCount, ...], ATOMIC] = ()
    """Times between tokens, by bucket."""


class RolloutStatus(ApiModel):
    """What the rollout is doing; after its end only the last action remains."""

    strategy: str | None = None
    """How it goes: spec.rollout.strategy, or RollingUpdate when it goes back to a revision that has served before."""

    began: datetime | None = None
    """When it began."""

    step: _Count | None = None
    """Which step, from 1; of a RollingUpdate, how many replicas have been replaced."""

    steps: _Count | None = None
    """Of how many."""

    reason: str | None = None
    """What it is doing or waiting for, in one word."""

    message: str | None = None
    """The same for people."""

    step_since: datetime | None = None
    """When the weight of this step was set."""

    next: datetime | None = None
    """When the hold of this step ends."""

    last_action: str | None = None
    """The last value of the annotation moorage.dev/action that was acted upon."""

    progress: Progress | None = None
    """The clock of the deadline."""

    window: Annotated[tuple[WindowFigures, ...], ATOMIC] = ()
    """What the gateways had counted when the step began."""


class Startup(ApiModel):
    """How far the next replica's start has come."""

    phase: str | None = None
    """The phase that it is in; absent when no replica starts."""

    estimated_ready: datetime | None = None
    """When it should be ready, if it takes as long as the last one."""

    seconds: Annotated[dict[str, _Count], FREE] | None = None
    """How long the phases of the last start took."""


class Gpu(ApiModel):
    """What the GPUs of all replicas do, as NVML measures it; written at most once a minute."""

    utilization: _Count
    """Mean share of time in which they compute, in percent."""

    memory: _Count
    """Mean share of their memory in use, in percent."""

    devices: _Count
    """How many there are."""

    temperature: _Count
    """Of the hottest, in degrees Celsius."""

    power_watts: _Count
    """All together."""


class Traffic(ApiModel):
    """What the replicas do, as the gateways measure it; written at most once a minute."""

    tokens_per_second: _Count
    """Tokens generated per second."""

    running: _Count
    """Requests that are being computed."""

    waiting: _Count
    """Requests that wait for their turn."""


class Decision(ApiModel):
    """Something that the operator decided."""

    time: datetime
    """When."""

    kind: Literal["Scale", "Weight", "Promote", "Rollback"]
    """What about."""

    from_: Annotated[str, Field(alias="from")]
    """What was."""

    to: str
    """What was decided."""

    reason: str
    """Why."""


class Status(ApiModel):
    """What is; written by the operator only."""

    observed_generation: Annotated[int, Field(ge=0, json_schema_extra={"format": "int64"})] | None = None
    """The metadata.generation that this status is about."""

    conditions: Annotated[tuple[Condition, ...], map_by("type")] = ()
    """Accepted, Available, Progressing, Ready and Stalled; GPUHealthy with accelerators, ScalingActive with
    autoscaling; Ready sums up the others."""

    url: str | None = None
    """Base URL for OpenAI clients inside the cluster."""

    ready: str | None = None
    """Ready replicas of those wanted, such as `2/2`, for people."""

    replicas: _Count | None = None
    """Replicas that exist, without those that are only kept warm."""

    ready_replicas: _Count | None = None
    """Replicas that answer requests."""

    selector: str | None = None
    """Label selector of the pods, for the scale subresource."""

    revision: RevisionPointers | None = None
    """Which revisions matter now."""

    revisions: Annotated[tuple[RevisionStatus, ...], map_by("number")] = ()
    """Revisions that have, or may soon have, replicas; their weights sum to 100 once something serves."""

    rollout: RolloutStatus | None = None
    """What the rollout is doing; absent when none is under way and no action was taken."""

    startup: Startup | None = None
    """How far the next start has come, and how long the last one took."""

    gpu: Gpu | None = None
    """What the GPUs do; absent where no replica has one that can be measured."""

    traffic: Traffic | None = None
    """What the replicas do; absent until a gateway has measured it."""

    measured: datetime | None = None
    """When gpu and traffic were last written."""

    decisions: Annotated[tuple[Decision, ...], ATOMIC] = ()
    """The last ten decisions, newest last."""
