"""Objects -> models: lenient about what is unknown, clear about what is wrong."""

from copy import deepcopy
from typing import Any

import pytest

from moorage_api.llmdeployment import LLMDeployment
from moorage_api.names import API_VERSION, KIND
from moorage_api.reading import InvalidObjectError, Problem, parse

OBJECT: dict[str, Any] = {
    "apiVersion": API_VERSION,
    "kind": KIND,
    "metadata": {
        "name": "chat",
        "namespace": "team-a",
        "uid": "5f3c",
        "generation": 3,
        "managedFields": [{"manager": "kubectl"}],
    },
    "spec": {
        "model": {"source": "hf://org/name@main", "servedName": "Chat", "contextLength": 4096, "quantization": "Int8"},
        "engine": {
            "image": "engine:1",
            "env": [{"name": "A", "value": "1"}],
            "scheduling": {"policy": "MLFQ", "maxRunning": 8},
        },
        "accelerator": {"resource": "nvidia.com/gpu", "count": 2, "products": ["A10"], "minMemory": "16Gi"},
        "resources": {"requests": {"cpu": 2, "memory": "4Gi"}, "limits": {"ephemeral-storage": "20Gi"}},
        "sharding": {"tensorParallel": 2, "pods": 1},
        "autoscaling": {
            "minReplicas": 0,
            "maxReplicas": 8,
            "targets": [{"metric": "RequestsInFlight", "averageValue": "8"}],
            "idleAfter": "10m",
            "behavior": {
                "scaleUp": {"selectPolicy": "Max", "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]},
                "scaleDown": {"stabilizationWindowSeconds": 60},
            },
            "budget": {"accelerators": 16},
        },
        "replicas": 2,
        "rollout": {
            "strategy": "Canary",
            "steps": [{"weight": 5, "hold": "2m"}, {"weight": 50, "hold": "1h30m"}],
            "gates": [
                {"metric": "ErrorRate", "max": "1%", "minRequests": 20},
                {"metric": "TimeToFirstTokenP95", "maxRegression": "20%", "minRequests": 100},
            ],
            "autoRollback": True,
            "progressDeadline": "15m",
            "keepWarm": {"replicas": 1, "for": "30m"},
            "revisionHistoryLimit": 10,
            "paused": False,
        },
        "rollbackTo": {"revision": 3},
        "podTemplate": {
            "metadata": {"labels": {"team": "a"}, "annotations": {}},
            "spec": {
                "nodeSelector": {"zone": "b"},
                "tolerations": [{"key": "k", "operator": "Exists"}],
                "affinity": {"podAntiAffinity": {}},
                "imagePullSecrets": [{"name": "registry"}],
                "terminationGracePeriodSeconds": 600,
            },
        },
    },
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The object with one field set, making what is missing on the way."""
    result = deepcopy(OBJECT)
    *parents, last = path.split(".")
    node = result
    for parent in parents:
        node = node.setdefault(parent, {})
    node[last] = value
    return result


def problems(raw: dict[str, Any]) -> tuple[Problem, ...]:
    with pytest.raises(InvalidObjectError) as error:
        parse(raw)
    return error.value.problems


def test_a_whole_object_is_read():
    deployment = parse(OBJECT).deployment
    assert deployment.metadata.name == "chat"
    assert deployment.metadata.generation == 3
    assert deployment.spec.model.served_name == "Chat"
    assert deployment.spec.engine.env[0].value == "1"
    assert deployment.spec.accelerator is not None
    assert deployment.spec.accelerator.products == ("A10",)
    assert deployment.spec.resources is not None
    assert deployment.spec.resources.requests is not None
    assert deployment.spec.resources.requests.cpu == "2"


def test_it_is_written_back_as_it_was():
    spec = deepcopy(OBJECT["spec"])
    spec["resources"]["requests"]["cpu"] = "2"
    assert parse(OBJECT).deployment.spec.to_api() == spec


def test_the_api_version_and_kind_are_ours():
    deployment = parse(OBJECT).deployment
    assert (deployment.api_version, deployment.kind) == (API_VERSION, KIND)


def test_a_deployment_is_a_value_through_and_through():
    first, second = parse(OBJECT).deployment, parse(deepcopy(OBJECT)).deployment
    assert first == second
    assert hash(first) == hash(second)
    with pytest.raises(ValueError, match="frozen"):
        first.spec.replicas = 5


def test_defaults_stand_in_for_what_is_left_out():
    spec = parse({**OBJECT, "spec": {"model": {"source": "python://llm"}}}).deployment.spec
    assert spec.replicas == 1
    assert (spec.engine.scheduling.policy, spec.engine.scheduling.max_running) == ("FCFS", 64)
    assert spec.model.quantization == "None"
    assert spec.accelerator is None
    assert spec.to_api() == {
        "model": {"source": "python://llm", "quantization": "None"},
        "engine": {"scheduling": {"policy": "FCFS", "maxRunning": 64}},
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


def test_a_known_object_has_no_unknown_fields():
    assert parse(OBJECT).unknown_fields == ()


@pytest.mark.parametrize(
    "path", ["spec.access", "spec.model.adapters", "spec.accelerator.sharding", "spec.resources.limits.hugepages"]
)
def test_an_unknown_field_is_ignored_and_named(path):
    parsed = parse(changed(path, {"some": "thing"}))
    assert parsed.unknown_fields == (path,)
    assert parsed.deployment == parse(OBJECT).deployment


def test_an_unknown_field_of_a_list_item_is_named_with_its_index():
    raw = changed("spec.engine.env", [{"name": "A", "value": "1"}, {"name": "B", "value": "2", "valueFrom": {}}])
    assert parse(raw).unknown_fields == ("spec.engine.env[1].valueFrom",)


def test_the_python_spelling_is_not_the_apis():
    parsed = parse(changed("spec.model.served_name", "other"))
    assert parsed.unknown_fields == ("spec.model.served_name",)
    assert parsed.deployment.spec.model.served_name == "Chat"


def test_every_wrong_field_is_named_with_what_is_wrong():
    raw = changed("spec.replicas", -1)
    raw["spec"]["engine"]["env"][0]["name"] = "1A"
    assert problems(raw) == (
        Problem("spec.engine.env[0].name", "write a name of letters, digits and `_` that does not begin with a digit"),
        Problem("spec.replicas", "Input should be greater than or equal to 0"),
    )


def test_the_error_is_one_readable_line():
    with pytest.raises(InvalidObjectError) as error:
        parse(changed("spec.model.digest", "latest"))
    assert str(error.value) == "spec.model.digest: write a digest as sha256: and 64 hexadecimal digits"


def test_a_refused_credential_is_repeated_nowhere():
    with pytest.raises(InvalidObjectError, match="must not contain credentials") as error:
        parse(changed("spec.model.source", "hf://me:hunter2@hub/model"))
    assert "hunter2" not in repr(error.value)
    assert "hunter2" not in repr(error.value.problems)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


@pytest.mark.parametrize("spec", [None, [], "text"])
def test_a_spec_that_is_no_object_is_a_problem_not_a_crash(spec):
    assert [problem.field for problem in problems({**OBJECT, "spec": spec})] == ["spec"]


def test_a_missing_spec_is_a_problem_not_a_crash():
    assert [problem.field for problem in problems({"metadata": OBJECT["metadata"]})] == ["spec"]


@pytest.mark.parametrize("status", [None, {}, "text", {"revisions": [{"number": "many"}]}])
def test_whatever_the_status_is_spec_is_read(status):
    assert parse({**OBJECT, "status": status}) == parse(OBJECT)


def test_python_code_may_spell_fields_its_own_way():
    deployment = LLMDeployment.model_validate(
        {
            "metadata": {"name": "chat", "namespace": "x"},
            "spec": {"model": {"source": "python://a", "served_name": "b"}},
        }
    )
    assert deployment.spec.model.served_name == "b"
