"""What the operator says about a deployment: condition types, and reasons that each name the user's next step.

Conditions follow Kubernetes' API conventions and kstatus, so that `kubectl wait`, Argo CD and people read them alike.
`Ready` sums the others up, and its reason is the STATUS column of `kubectl get llmdeployments`.
"""

from enum import StrEnum
from typing import Self


class _Explained(StrEnum):
    """A string with an explanation that programs can show, too; its docstring is the same text."""

    explanation: str

    def __new__(cls, value: str, explanation: str) -> Self:
        """Make the string `value` and keep the explanation beside it."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.explanation = explanation
        member.__doc__ = explanation
        return member


class ConditionType(_Explained):
    """The conditions of an LLMDeployment; each is written with every status, with its observedGeneration."""

    ACCEPTED = (
        "Accepted",
        "The operator understands spec. False: spec is not acted on, and the last good revision goes on.",
    )
    AVAILABLE = "Available", "At least one replica answers requests, or a request would wake one."
    PROGRESSING = "Progressing", "Something is on its way: a start, a rollout, a change of scale."
    READY = "Ready", "What spec asks for is what serves. Its reason and message sum up the whole object."
    STALLED = "Stalled", "Nothing goes on by itself any more: spec or the cluster has to be changed."
    GPU_HEALTHY = (
        "GPUHealthy",
        "The GPUs of the replicas can be measured and work. Only with spec.accelerator; Unknown until measured.",
    )
    SCALING_ACTIVE = (
        "ScalingActive",
        (
            "The number of replicas follows the targets of spec.autoscaling. Only with spec.autoscaling. False: the "
            "number stays as it is, except where the message says otherwise."
        ),
    )


class ConditionStatus(StrEnum):
    """The three values that a Kubernetes condition may have."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Reason(_Explained):
    """Why a condition is as it is; the explanation says what it means and what the user does next."""

    # As it should be.
    SERVING = "Serving", "Every replica that spec asks for answers requests. Nothing to do."
    SCALED_TO_ZERO = (
        "ScaledToZero",
        (
            "Nothing runs: spec.replicas is 0, and kubectl scale llmdep/NAME --replicas=1 serves again; or, with "
            "spec.autoscaling.minReplicas 0, nobody asks for the model, and the next request starts a replica."
        ),
    )
    VALID = "Valid", "spec was understood. Nothing to do."

    # On the way; the order is that of a start.
    ROLLING_OUT = (
        "RollingOut",
        "A new revision comes up beside the one that serves. Wait; the message says which replica is awaited.",
    )
    RESOLVING_SOURCE = (
        "ResolvingSource",
        (
            "What spec.model.source names may change (a branch, a package without a version, a claim), so it is looked "
            "up once, and all replicas of the revision serve the same files. Wait."
        ),
    )
    STEP_HOLDING = "StepHolding", "The rollout keeps a step for as long as its hold says. Wait, or promote it."
    GATE_HOLDING = (
        "GateHolding",
        "Too little was measured to judge a gate of spec.rollout.gates. Wait for requests, or promote the rollout.",
    )
    SCALING = "Scaling", "Replicas of a serving revision are being added or removed. Wait."
    SCHEDULING = "Scheduling", "Pods wait for a node. Wait; when it lasts, the message carries the scheduler's words."
    FETCHING_MODEL = (
        "FetchingModel",
        "The model's files are being fetched and verified. Wait; large models take minutes.",
    )
    LOADING_WEIGHTS = "LoadingWeights", "The engine reads the weights into memory. Wait."
    WARMING_UP = "WarmingUp", "The engine generates a first token before it takes requests. Wait."

    # Held up: spec is fine, the cluster cannot do it now.
    PAUSED = (
        "Paused",
        "The rollout is paused. Set spec.rollout.paused to false, or annotate moorage.dev/action=resume/rN.",
    )
    GATEWAY_UNREACHABLE = (
        "GatewayUnreachable",
        "No gateway tells which replicas it has in its table, so no requests are moved. Check the gateways' pods.",
    )
    WAITING_FOR_GPU = (
        "WaitingForGPU",
        (
            "No node has the accelerators that spec.accelerator asks for. Free some, add nodes, or ask for "
            "another product or fewer."
        ),
    )
    WAITING_FOR_BUDGET = (
        "WaitingForBudget",
        (
            "spec.autoscaling.budget has no room for a replica that the rollout starts beside those that serve. Raise "
            "it, lower maxReplicas, or let a RollingUpdate replace one after the other (maxUnavailable)."
        ),
    )
    UNSCHEDULABLE = (
        "Unschedulable",
        (
            "No node has room for spec.resources. Lower the requests, free memory or CPU, or add nodes; the "
            "message says what is short."
        ),
    )
    QUOTA_EXCEEDED = (
        "QuotaExceeded",
        (
            "A ResourceQuota or LimitRange of the namespace refuses the pods. Lower spec.resources or ask for a "
            "larger quota."
        ),
    )

    # Wrong, and waiting changes nothing.
    ROLLED_BACK = (
        "RolledBack",
        (
            "The revision that spec asks for was given up, and the one before serves. Change spec, or annotate "
            "moorage.dev/action=retry/rN."
        ),
    )
    GATE_FAILED = (
        "GateFailed",
        "A gate of spec.rollout.gates failed. Change what made the revision worse, or raise the gate.",
    )
    PROGRESS_DEADLINE_EXCEEDED = (
        "ProgressDeadlineExceeded",
        "No further replica came up within spec.rollout.progressDeadline. Look at the pods, or raise the deadline.",
    )
    ABORTED = "Aborted", "A person aborted the rollout."
    REVISION_NOT_FOUND = (
        "RevisionNotFound",
        "spec.rollbackTo names a revision that is not remembered. Choose one of `kubectl get controllerrevisions`.",
    )
    INVALID_SPEC = "InvalidSpec", "spec cannot be used. Correct the field that the message names."
    IMAGE_PULL_FAILED = (
        "ImagePullFailed",
        (
            "The engine's image cannot be pulled. Check spec.engine.image for a typo and that the nodes may pull "
            "from its registry."
        ),
    )
    MODEL_NOT_FOUND = (
        "ModelNotFound",
        "spec.model.source names nothing that exists. Check the name, the revision, the claim and the path.",
    )
    DIGEST_MISMATCH = (
        "DigestMismatch",
        (
            "The fetched files are not those that spec.model.digest pins, or that were there when the revision was "
            "made. Find out who changed the source; to serve the new files, set spec.model.digest to theirs."
        ),
    )
    INVALID_SOURCE = (
        "InvalidSource",
        "The files at spec.model.source are not a model that can be served. The message says what is wrong with them.",
    )
    UNAUTHORIZED = (
        "Unauthorized",
        "The source refuses the token or wants one. Check the Secret that spec.model.credentials.secretName names.",
    )
    SECRET_NOT_FOUND = (
        "SecretNotFound",
        (
            "The Secret that spec.model.credentials.secretName names, or its key `token`, is missing. Create it "
            "in the same namespace."
        ),
    )
    FETCH_FAILED = (
        "FetchFailed",
        "The model could not be fetched. It is tried again; the message carries the error of the last try.",
    )
    INSUFFICIENT_MEMORY = (
        "InsufficientMemory",
        (
            "The weights and one sequence do not fit the memory of a replica. "
            "Raise spec.resources.limits.memory, take larger accelerators, or lower spec.model.contextLength."
        ),
    )
    OUT_OF_MEMORY = (
        "OutOfMemory",
        (
            "The kernel killed a container at its memory limit. Raise spec.resources.limits.memory or lower "
            "spec.engine.scheduling.maxRunning."
        ),
    )
    UNSUPPORTED_MODEL = (
        "UnsupportedModel",
        (
            "The engine cannot serve the model as spec.model asks for it. Change what the message names, or choose "
            "another model or an engine image that supports it."
        ),
    )
    ENGINE_FAILED = (
        "EngineFailed",
        "The engine ended on an error. The message carries its last words; kubectl logs has the rest.",
    )
    WORKLOAD_REFUSED = (
        "WorkloadRefused",
        (
            "The API server refuses an object that the operator renders, for instance by a policy of the "
            "cluster. The message is its answer."
        ),
    )

    # Of GPUHealthy.
    GPU_MEASURED = "GPUMeasured", "Every GPU answers. Nothing to do."
    GPU_UNHEALTHY = (
        "GPUUnhealthy",
        "A replica cannot measure its GPUs, or lost one. The message carries NVML's words; look at the node.",
    )
    GPU_NOT_MEASURED = "GPUNotMeasured", "No gateway has told about the GPUs yet. Wait."

    # Of ScalingActive; a model that went to zero has ScaledToZero here, too.
    METRICS_FOUND = "MetricsFound", "The HorizontalPodAutoscaler reads every target. Nothing to do."
    METRICS_AWAITED = (
        "MetricsAwaited",
        "The HorizontalPodAutoscaler was made and has not judged yet. Wait; it looks every 15 seconds by default.",
    )
    METRICS_MISSING = (
        "MetricsMissing",
        (
            "The HorizontalPodAutoscaler cannot read a target, so nothing is scaled down. The message is its own word; "
            "most often replicas do not tell that figure (KV cache, GPUs) or the gateways have just started."
        ),
    )
    SCALING_REFUSED = (
        "ScalingRefused",
        (
            "The API server does not take the HorizontalPodAutoscaler, or the number that it writes. The message is "
            "its own word; most often it names a quota, an admission policy or a webhook to be changed."
        ),
    )
    METRICS_UNSERVED = (
        "MetricsUnserved",
        (
            "No gateway serves the metrics of the targets, so the number of replicas stays as it is. Check the "
            "gateways' pods, and their logs."
        ),
    )
    METRICS_OWNED_BY_ANOTHER = (
        "MetricsOwnedByAnother",
        (
            "Another adapter serves custom.metrics.k8s.io in this cluster, and only one can. Targets of CPUUtilization "
            "are measured by metrics-server instead, where there is one; or remove spec.autoscaling and scale the "
            "LLMDeployment by a HorizontalPodAutoscaler or ScaledObject of your own."
        ),
    )
    METRICS_NEED_CLUSTER = (
        "MetricsNeedCluster",
        (
            "The operator is installed for one namespace, and metrics are registered for a whole cluster. Scale the "
            "LLMDeployment by an autoscaler of your own, or install for the cluster."
        ),
    )
    REPLICAS_OWNED_BY_TWO = (
        "ReplicasOwnedByTwo",
        (
            "Somebody else writes spec.replicas, too, so the number may jump. Remove replicas from what is applied "
            "(in Git, say), or the other autoscaler, or spec.autoscaling."
        ),
    )
    SCALING_DISABLED = (
        "ScalingDisabled",
        (
            "spec.replicas is 0, which stops the model by hand, and no autoscaler changes that. To go on: kubectl "
            "scale llmdep/NAME --replicas=1."
        ),
    )


PODS_ON_THE_WAY = (Reason.SCHEDULING, Reason.FETCHING_MODEL, Reason.LOADING_WEIGHTS, Reason.WARMING_UP)
"""The phases of a replica's start, in order."""
