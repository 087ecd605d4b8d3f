"""The CustomResourceDefinition as a whole."""

from collections.abc import Iterator
from typing import Any

import pytest

from moorage_api.crd import custom_resource_definition, schema
from moorage_api.names import API_VERSION, GROUP, KIND, PLURAL, VERSION
from moorage_api.reference import api_reference


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")


def test_the_names_are_those_that_all_programs_use():
    spec = custom_resource_definition()["spec"]
    assert (spec["group"], spec["names"]["kind"], spec["names"]["plural"]) == (GROUP, KIND, PLURAL)
    assert [version["name"] for version in spec["versions"]] == [VERSION]
    assert f"{GROUP}/{VERSION}" == API_VERSION


def test_every_field_of_spec_and_status_is_described():
    undescribed = [
        path for path, node in nodes(schema()) if path.startswith((".spec", ".status")) and _silent(path, node)
    ]
    assert undescribed == []


def _silent(path: str, node: dict[str, Any]) -> bool:
    return not path.endswith("[]") and not node.get("description", "").endswith(".")


def test_nothing_in_status_has_a_default_object():
    assert "default" not in schema()["properties"]["status"]


def test_the_reference_has_every_field_and_rule():
    page = api_reference()
    for path, node in nodes(schema()):
        name = path.removeprefix(".")
        if path.startswith((".spec.", ".status.")) and not path.endswith("[]"):
            assert f"| `{name}` |" in page
        for rule in node.get("x-kubernetes-validations", ()):
            assert rule["message"] in page


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        ("rollout.maxSurge", "integer or percentage"),
        ("rollout.maxUnavailable", "integer or percentage"),
        ("resources.requests.cpu", "quantity"),
        ("replicas", "integer, at least 0"),
    ],
)
def test_the_reference_says_what_may_be_written(field, kind):
    assert f"| `spec.{field}` | {kind} |" in api_reference()


def test_every_row_of_the_reference_has_as_many_cells_as_its_head():
    for table in api_reference().split("\n\n"):
        rows = [line.replace("\\|", "") for line in table.strip().splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1
