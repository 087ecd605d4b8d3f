"""The CustomResourceDefinition of LLMDeployment, made from its model."""

from typing import Any, Final

from moorage_api.llmdeployment import LLMDeployment
from moorage_api.names import GROUP, KIND, PLURAL, VERSION
from moorage_api.structural import Schema, check_bounds, structural, unfolded

NAME: Final = f"{PLURAL}.{GROUP}"


def _ready(field: str) -> str:
    return f'.status.conditions[?(@.type=="Ready")].{field}'


COLUMNS: Final = (
    {"name": "Model", "type": "string", "jsonPath": ".spec.model.source"},
    {"name": "Revision", "type": "integer", "jsonPath": ".status.revision.stable"},
    {"name": "Ready", "type": "string", "jsonPath": ".status.ready"},
    {"name": "GPU%", "type": "integer", "jsonPath": ".status.gpu.utilization"},
    {"name": "Tok/s", "type": "integer", "jsonPath": ".status.traffic.tokensPerSecond"},
    {"name": "Status", "type": "string", "jsonPath": _ready("reason")},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    {"name": "URL", "type": "string", "jsonPath": ".status.url", "priority": 1},
    {"name": "Message", "type": "string", "jsonPath": _ready("message"), "priority": 1},
)
"""The columns of `kubectl get llmdeployments`; those of priority 1 only with `-o wide`."""


def custom_resource_definition() -> dict[str, Any]:
    """The whole manifest."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["llmdep"],
                "categories": ["ai", "llm"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": list(COLUMNS),
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "schema": {"openAPIV3Schema": schema()},
                }
            ],
        },
    }


def schema() -> Schema:
    """The structural schema; of metadata only the API server's own rules are said."""
    model = LLMDeployment.model_json_schema(by_alias=True)
    model["properties"] |= {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
    }
    model["required"] = ["spec"]
    result = structural(model)
    result["description"] = unfolded(result["description"])
    check_bounds(result["properties"]["spec"], "spec")
    return result
