"""LLMDeployment: one object that says which model to serve, on what, and how many times.

This module is the single source: the CRD, its admission rules, the API reference and the parser follow from it. A
field's docstring is what `kubectl explain` prints. A field is here only when something acts on it, and every string and
list of spec is bounded, because CEL's cost is estimated from the bounds.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from moorage_api.autoscaling import Autoscaling
from moorage_api.base import ApiModel
from moorage_api.lists import SET, map_by
from moorage_api.pod_template import PodTemplate
from moorage_api.quantity import MemorySize, Quantity
from moorage_api.rollout import RollbackTo, Rollout
from moorage_api.rules import Excludes, Matches, Rule
from moorage_api.sharding import Sharding
from moorage_api.source import ModelSource
from moorage_api.status import Status

MAX_NAME_LENGTH = 40
"""Children add suffixes to the name and must stay below 63 characters."""

_Count = Annotated[int, Field(ge=0, json_schema_extra={"format": "int32"})]
_Digest = Annotated[
    str,
    StringConstraints(max_length=71),
    Matches("sha256:[0-9a-f]{64}", "write a digest as sha256: and 64 hexadecimal digits"),
]


class Credentials(ApiModel):
    """Where the token for the model's source is kept."""

    secret_name: Annotated[
        str,
        StringConstraints(max_length=253),
        Matches(
            "[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?",
            "write the name of a Secret of the same namespace, in lower case, such as hf-token",
        ),
    ]
    """Name of a Secret in the same namespace with the token under the key `token`. Only the container that fetches the
    model sees it."""


class Model(ApiModel):
    """The model to serve."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.quantization) || self.quantization == 'None' || !self.source.matches('[.]gguf(@.*)?$')",
            "a GGUF file is quantised already and is served as it is; "
            "remove spec.model.quantization, or name a source with safetensors",
        ),
    )

    source: ModelSource
    """Where the model comes from: `hf://ORGANISATION/NAME[@REVISION]` (Hugging Face Hub; with `/FILE.gguf` after the
    name for one file of several), `pvc://CLAIM/PATH` (files on a PersistentVolumeClaim of the same namespace) or
    `python://PACKAGE[==VERSION]` (shipped in a Python package). Example: `hf://HuggingFaceTB/SmolLM2-135M-Instruct`."""

    served_name: (
        Annotated[
            str,
            StringConstraints(max_length=100),
            Matches(
                "[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?",
                "write a name of letters, digits, `.`, `_` and `-` that begins and ends with a letter or digit, "
                "such as SmolLM2-135M",
            ),
        ]
        | None
    ) = None
    """What clients put into the field `model` of a request. Default: the name of the object. Changing it restarts
    nothing."""

    digest: _Digest | None = None
    """Pin of the model's content, `sha256:` and 64 hexadecimal digits: other content is refused instead of served.
    status.revisions shows the digest of what was fetched."""

    context_length: Annotated[int, Field(ge=1, json_schema_extra={"format": "int32"})] | None = None
    """Most tokens of prompt and answer together. Default: what the model was trained for. A smaller one needs less
    memory."""

    quantization: Literal["None", "Int8", "Int4"] = "None"
    """To what the weights are rounded while they are loaded. `None`: to nothing, they stay as they are stored. `Int8`
    and `Int4`: to 8 or 4 bits each, in groups of 32 with their own scale (embeddings and output layer always to 8
    bits), which needs about a half or a third of the memory of 16-bit weights and answers a little differently. For
    models in safetensors; a GGUF file is quantised already."""

    credentials: Credentials | None = None
    """What to show to a source that asks who you are."""


class EnvVar(ApiModel):
    """One environment variable."""

    name: Annotated[
        str,
        StringConstraints(max_length=253),
        Matches("[A-Za-z_][A-Za-z0-9_]*", "write a name of letters, digits and `_` that does not begin with a digit"),
        Excludes(
            "^HF_TOKEN$",
            "everyone who can read this object would see the token; "
            "put it into a Secret under the key `token` and name the Secret in spec.model.credentials.secretName",
        ),
        Excludes("^HOME$", "HOME is set already, to a folder that can be written; remove it"),
        Excludes(
            "^(MOORAGE_GROUP|LWS_GROUP_SIZE|LWS_WORKER_INDEX|LWS_LEADER_ADDRESS)$",
            "where a pod is among the ranks of its replica follows from spec.sharding; remove it",
        ),
    ]
    """Name of the variable."""

    value: Annotated[str, StringConstraints(max_length=4096)]
    """Its value, as it is. Everyone who can read this object can read it."""


class Scheduling(ApiModel):
    """How the engine shares itself among requests."""

    policy: Literal["FCFS", "Priority", "MLFQ"] = "FCFS"
    """Whose turn is next. `FCFS`: first come, first served. `Priority`: the smaller number in the request's field
    `priority` (0 without one) first. `MLFQ`: requests that need little computing before those that need much
    (multi-level feedback queues), so that short answers come soon under load and long ones later."""

    max_running: Annotated[int, Field(ge=1, le=1024, json_schema_extra={"format": "int32"})] = 64
    """Most requests that one replica computes at the same time; more wait their turn. Higher: more tokens per second in
    all, slower each, and more memory for a step."""


class Engine(ApiModel):
    """The inference engine."""

    image: (
        Annotated[
            str,
            StringConstraints(max_length=512),
            Matches(
                "[a-zA-Z0-9][a-zA-Z0-9._:/@-]*",
                "write an image as REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:DIGEST, without spaces",
            ),
        ]
        | None
    ) = None
    """Container image of the engine. Default: the image that belongs to the operator's version when a revision is made,
    so that an upgrade of the operator restarts nothing."""

    env: Annotated[tuple[EnvVar, ...], Field(max_length=64), map_by("name")] = ()
    """Environment variables of the engine and of the container that fetches the model, besides their own; for instance
    `HF_ENDPOINT` for a mirror of the Hugging Face Hub."""

    scheduling: Scheduling = Scheduling()
    """How the engine shares itself among requests."""


class Accelerator(ApiModel):
    """Accelerators of one pod."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!(has(self.products) || has(self.minMemory)) || self.resource.startsWith('nvidia.com/')",
            "products and minMemory are read from NVIDIA's node labels, so they need a resource of nvidia.com; "
            "remove them, or set spec.accelerator.resource to nvidia.com/gpu",
        ),
    )

    resource: Annotated[
        str,
        StringConstraints(max_length=253),
        Matches(
            "[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?",
            "write the extended resource that the nodes offer, such as nvidia.com/gpu; "
            "`kubectl describe node` lists it under Allocatable",
        ),
    ] = "nvidia.com/gpu"
    """Extended resource that the device plugin of the nodes offers."""

    count: Annotated[int, Field(ge=1, le=64, json_schema_extra={"format": "int32"})] = 1
    """How many each pod of a replica gets: with the default of spec.sharding.pods, how many each replica gets."""

    products: Annotated[
        tuple[
            Annotated[
                str,
                StringConstraints(max_length=63),
                Matches(
                    "[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?",
                    "write a product as the node label nvidia.com/gpu.product spells it, such as NVIDIA-H100-80GB-HBM3",
                ),
            ],
            ...,
        ],
        Field(max_length=16),
        SET,
    ] = ()
    """Products that will do, as the node label `nvidia.com/gpu.product` spells them, such as `NVIDIA-H100-80GB-HBM3`.
    Default: any."""

    min_memory: MemorySize | None = None
    """Least memory of one device, such as `40Gi`; compared with the node label `nvidia.com/gpu.memory`.
    Default: any."""


class ResourceAmounts(ApiModel):
    """Amounts of a node's resources. Accelerators are asked for in spec.accelerator."""

    cpu: Quantity | None = None
    """Cores, such as `2` or `500m`."""

    memory: Quantity | None = None
    """Bytes, such as `4Gi`."""

    ephemeral_storage: Annotated[Quantity | None, Field(alias="ephemeral-storage")] = None
    """Bytes of the node's disk, such as `20Gi`; a fetched model lies there."""


def _within_limit(resource: str, key: str) -> Rule:
    """A request above its limit would be refused later, where the user does not look."""
    places = ("requests", "limits")
    absent = " || ".join(f"!has(self.{place}) || !has(self.{place}.{key})" for place in places)
    request, limit = (f"string(self.{place}.{key})" for place in places)
    # What is no quantity is the business of the field's own rule.
    unreadable = f"!isQuantity({request}) || !isQuantity({limit})"
    return Rule(
        f"{absent} || {unreadable} || quantity({request}).compareTo(quantity({limit})) <= 0",
        f"requests.{resource} is more than limits.{resource}; raise the limit or lower the request",
    )


class Resources(ApiModel):
    """What one pod gets of its node."""

    rules: ClassVar[tuple[Rule, ...]] = (
        _within_limit("cpu", "cpu"),
        _within_limit("memory", "memory"),
        _within_limit("ephemeral-storage", "ephemeral__dash__storage"),  # CEL's spelling of a key with a dash
    )

    requests: ResourceAmounts | None = None
    """What a pod is promised; the scheduler looks for a node that has it. Default: the limits."""

    limits: ResourceAmounts | None = None
    """What a pod may take at most. Above its memory limit a container is killed."""


class Spec(ApiModel):
    """What is wanted."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.autoscaling) || !has(self.autoscaling.budget) || has(self.accelerator)",
            "autoscaling.budget counts accelerators, so it needs spec.accelerator; "
            "remove the budget: maxReplicas is the bound of a model on CPU",
        ),
        Rule(
            "!has(self.autoscaling) || !has(self.autoscaling.budget) || !has(self.accelerator) || "
            "self.autoscaling.budget.accelerators >= self.accelerator.count * self.sharding.pods * "
            "(self.autoscaling.minReplicas < 1 ? 1 : self.autoscaling.minReplicas)",
            "autoscaling.budget.accelerators is less than minReplicas (at least 1) of accelerator.count "
            "in each of sharding.pods need; raise the budget or lower minReplicas",
        ),
        Rule(
            "!has(self.accelerator) || self.sharding.tensorParallel <= self.sharding.pods * self.accelerator.count",
            "each rank needs an accelerator of its own, and spec.accelerator.count is how many each pod has; "
            "raise it to spec.sharding.tensorParallel / spec.sharding.pods, or divide the ranks over more pods",
        ),
    )

    model: Model
    """The model to serve."""

    engine: Engine = Engine()
    """The inference engine that serves it."""

    accelerator: Accelerator | None = None
    """Accelerators of each pod of a replica. Leave it out to serve on CPU."""

    resources: Resources | None = None
    """CPU, memory and disk of each pod of a replica."""

    sharding: Sharding = Sharding()
    """How one replica is divided among processes and pods. Default: it is not."""

    replicas: _Count = 1
    """How many replicas serve. 0 stops the model and keeps its settings. `kubectl scale` and autoscalers write it
    through the scale subresource. With spec.autoscaling it is the autoscaler's: leave it out."""

    autoscaling: Autoscaling | None = None
    """Let spec.replicas follow the load. Left out, nothing of the operator changes it."""

    rollout: Rollout = Rollout()
    """How a change of what replicas are made of comes into effect."""

    rollback_to: RollbackTo | None = None
    """Serve this earlier revision, whatever the rest of spec says about what replicas are made of. Remove it to serve
    what spec says again."""

    pod_template: PodTemplate | None = None
    """What is added to the pods of every replica: labels, annotations, placement and grace period."""


class Metadata(ApiModel):
    """The part of an object's metadata that we read."""

    name: str
    namespace: str
    uid: str = ""
    generation: int = 0


class LLMDeployment(ApiModel):
    """A large language model that is served: which model, with which engine, on what, how many times."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "metadata.name must begin with a letter and have only lower-case letters, digits and `-` (no dots); "
            "to serve under another name, such as llama-3.1, set spec.model.servedName",
        ),
        Rule(
            f"size(self.metadata.name) <= {MAX_NAME_LENGTH}",
            f"metadata.name must have at most {MAX_NAME_LENGTH} characters, because pods add to it; "
            "to serve under a longer name, set spec.model.servedName",
        ),
    )

    api_version: Literal["moorage.dev/v1alpha1"] = "moorage.dev/v1alpha1"
    kind: Literal["LLMDeployment"] = "LLMDeployment"
    metadata: Metadata

    spec: Spec
    """What is wanted."""

    status: Status = Status()
    """What is; written by the operator."""
