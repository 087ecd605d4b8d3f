"""The API reference as Markdown, made from the same schema that the API server gets."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from moorage_api.conditions import ConditionType, Reason
from moorage_api.crd import COLUMNS, schema
from moorage_api.names import API_VERSION, KIND
from moorage_api.rules import VALIDATIONS
from moorage_api.structural import Schema

_HEADER = f"""\
# API reference: {KIND}

`apiVersion: {API_VERSION}` · short name `llmdep` · `kubectl get ai` and `kubectl get llm` list it, too.

Made by `moor crd` from the models; `kubectl explain llmdeployment.spec` says the same on a cluster. A field that is not
here is refused (`unknown field`).
"""


class _Field(NamedTuple):
    path: str
    schema: Schema
    required: bool


def api_reference() -> str:
    """The whole page."""
    fields = list(_fields(schema(), ""))
    spec = [field for field in fields if field.path.startswith("spec.") and not field.path.endswith("[]")]
    status = [field for field in fields if field.path.startswith("status.")]
    sections = [
        _HEADER,
        "## spec\n\n" + _table(("Field", "Type", "Default", "Meaning"), (_spec_row(field) for field in spec)),
        "## What is refused, and what it says\n\n" + _table(("Field", "Message"), _rules(fields)),
        "## status\n\n" + _table(("Field", "Type", "Meaning"), (_status_row(field) for field in status)),
        "## Conditions\n\n" + _table(("Type", "Meaning"), ((f"`{item}`", item.explanation) for item in ConditionType)),
        "## Reasons\n\n" + _table(("Reason", "What it means, and what to do"), _reasons()),
        "## Columns of `kubectl get`\n\n"
        + _table(("Column", "Shows", "With"), (_column_row(each) for each in COLUMNS)),
    ]
    return "\n".join(sections)


def _fields(node: Schema, path: str) -> Iterator[_Field]:
    """Every field below a node, parents first; the node itself when it carries rules of its own."""
    if not path:
        yield _Field("", node, required=True)
    for name, child in node.get("properties", {}).items():
        place = f"{path}.{name}".removeprefix(".")
        yield _Field(place, child, required=name in node.get("required", ()))
        yield from _fields(child, place)
        if "items" in child:
            yield from _item_fields(child["items"], f"{place}[]")


def _item_fields(item: Schema, place: str) -> Iterator[_Field]:
    if VALIDATIONS in item:
        yield _Field(place, item, required=True)
    yield from _fields(item, place)


def _spec_row(field: _Field) -> tuple[str, ...]:
    default = "**required**" if field.required else _code(field.schema.get("default"))
    return (f"`{field.path}`", _type(field.schema), default, field.schema.get("description", ""))


def _status_row(field: _Field) -> tuple[str, ...]:
    return (f"`{field.path}`", _type(field.schema), field.schema.get("description", ""))


def _column_row(column: dict[str, Any]) -> tuple[str, ...]:
    return (column["name"].upper(), f"`{column['jsonPath']}`", "`-o wide`" if column.get("priority") else "always")


def _rules(fields: list[_Field]) -> Iterator[tuple[str, ...]]:
    for field in fields:
        for rule in field.schema.get(VALIDATIONS, ()):
            yield (f"`{field.path}`" if field.path else "the object", rule["message"])


def _reasons() -> Iterator[tuple[str, ...]]:
    return ((f"`{reason}`", reason.explanation) for reason in Reason)


def _type(node: Schema) -> str:
    """The type with its bounds, such as `integer, 1 to 64`."""
    if node.get("x-kubernetes-int-or-string"):
        return "integer or percentage" if any("%" in rule["rule"] for rule in node.get(VALIDATIONS, ())) else "quantity"
    kind = "list" if node["type"] == "array" else str(node["type"])
    if "enum" in node:
        return " or ".join(f"`{value}`" for value in node["enum"])
    low, high = node.get("minimum"), node.get("maximum")
    if high is not None:
        return f"{kind}, {low} to {high}"
    if low is not None:
        return f"{kind}, at least {low}"
    return kind


def _code(default: Any) -> str:
    return "" if default is None or isinstance(default, dict) else f"`{default}`"


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
