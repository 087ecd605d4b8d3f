"""Pydantic's JSON schema -> a structural schema, the dialect that CustomResourceDefinitions are written in.

What cannot be said in that dialect (a union, a tuple, a recursive type) is refused here, where its author sees it, and
so is what would go wrong only later: a list that does not say how it merges, and a string or list without bound, from
which CEL's cost cannot be estimated.

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
"""

from collections.abc import Mapping
from typing import Any, Final

Schema = dict[str, Any]

_KEPT: Final = frozenset(
    {"type", "enum", "format", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "required"}
    | {"minProperties", "maxProperties"}
)
_TRANSLATED: Final = frozenset({"description", "properties", "items", "default", "additionalProperties"})
_DROPPED: Final = frozenset({"title", "$defs"})


class UnsupportedSchemaError(TypeError):
    """A model says something that a structural schema cannot; the text names the field and the way out."""


def structural(schema: Mapping[str, Any]) -> Schema:
    """Translate the schema of a model; `$defs` is looked for at its top.

    Raises:
        UnsupportedSchemaError: a field has no structural schema.
    """
    return _node(schema, schema.get("$defs", {}), "")


def _node(node: Mapping[str, Any], definitions: Mapping[str, Any], path: str) -> Schema:
    node, definitions = _inlined(_without_null(node, path), definitions, path)
    kept = {key: value for key, value in node.items() if key in _KEPT or key.startswith("x-kubernetes-")}
    if unsupported := node.keys() - kept.keys() - _TRANSLATED - _DROPPED:
        raise UnsupportedSchemaError(f"{path}: {sorted(unsupported)} cannot be said in a structural schema")
    if kept.get("type") == "array" and "x-kubernetes-list-type" not in kept:
        raise UnsupportedSchemaError(
            f"{path}: mark the list with SET or map_by, so that server-side apply can merge it"
        )
    result: Schema = {}
    if "description" in node:
        result["description"] = unfolded(node["description"])
    result |= dict(sorted(kept.items()))
    if (default := _written(node.get("default"))) is not None:
        result["default"] = default
    if "items" in node:
        result["items"] = _node(node["items"], definitions, f"{path}[]")
    if (rest := node.get("additionalProperties")) is True:
        result["x-kubernetes-preserve-unknown-fields"] = True
    elif rest:
        result["additionalProperties"] = _node(rest, definitions, f"{path}{{}}")
    if "properties" in node:
        result["properties"] = {
            name: _node(child, definitions, f"{path}.{name}") for name, child in node["properties"].items()
        }
    return result


def _without_null(node: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """`T | None` is an optional T: what surrounds the union belongs to T."""
    if "anyOf" not in node:
        return node
    choices = [choice for choice in node["anyOf"] if choice.get("type") != "null"]
    if len(choices) != 1:
        raise UnsupportedSchemaError(f"{path}: a union; use optional fields beside one another, and a rule")
    return {**choices[0], **{key: value for key, value in node.items() if key != "anyOf"}}


def _inlined(
    node: Mapping[str, Any], definitions: Mapping[str, Any], path: str
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Put the definition in place of its `$ref`; the field's own description and default win.

    The definitions that come back lack this one, so that a type within itself is noticed.
    """
    if "$ref" not in node:
        return node, definitions
    name = node["$ref"].removeprefix("#/$defs/")
    if name not in definitions:
        raise UnsupportedSchemaError(f"{path}: {name} contains itself")
    rest = {key: value for key, value in definitions.items() if key != name}
    return {**definitions[name], **{key: value for key, value in node.items() if key != "$ref"}}, rest


def _written(default: Any) -> Any:
    """A default as the API server shall store it: nothing for what is empty anyway."""
    if isinstance(default, Mapping):
        default = {key: value for key, item in default.items() if (value := _written(item)) is not None}
    return None if default in ({}, []) else default


def unfolded(text: str) -> str:
    """Undo the line breaks of the source, keep paragraphs."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def check_bounds(schema: Schema, path: str) -> None:
    """Refuse what has no upper bound; CEL rules, wherever they come to stand, are then within their cost limits.

    Raises:
        UnsupportedSchemaError: a string without maxLength, a list without maxItems, or a map without maxProperties.
    """
    if schema.get("type") == "string" and not schema.keys() & {"maxLength", "enum"}:
        raise UnsupportedSchemaError(f"{path}: a string without max_length")
    if schema.get("type") == "array" and "maxItems" not in schema:
        raise UnsupportedSchemaError(f"{path}: a list without max_length")
    if "additionalProperties" in schema:
        if "maxProperties" not in schema:
            raise UnsupportedSchemaError(f"{path}: a map without max_length")
        check_bounds(schema["additionalProperties"], f"{path}{{}}")
    if "items" in schema:
        check_bounds(schema["items"], f"{path}[]")
    for name, child in schema.get("properties", {}).items():
        check_bounds(child, f"{path}.{name}")
