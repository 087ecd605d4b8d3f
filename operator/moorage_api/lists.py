"""How server-side apply merges a list (`x-kubernetes-list-type`); every list of our resources says it.

Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy
"""

from dataclasses import dataclass

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


@dataclass(frozen=True)
class ListType:
    """Marks a list field."""

    kind: str
    keys: tuple[str, ...] = ()

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Add the merge strategy to the field's schema."""
        json_schema = handler(schema)
        json_schema["x-kubernetes-list-type"] = self.kind
        if self.keys:
            json_schema["x-kubernetes-list-map-keys"] = list(self.keys)
        return json_schema


ATOMIC = ListType("atomic")
"""Whoever writes the list owns the whole of it: the order means something."""

SET = ListType("set")
"""Each value once, merged value by value."""


def map_by(*keys: str) -> ListType:
    """Items are merged by these keys, and no two items may have the same."""
    return ListType("map", keys)
