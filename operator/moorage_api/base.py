"""What all our API models have in common."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from moorage_api.rules import VALIDATIONS, Rule


class ApiModel(BaseModel):
    """A frozen value: camelCase in the API, snake_case in Python, docstrings as `kubectl explain` shows them.

    Unknown fields are ignored when read, so that an older operator serves an object of a newer one; the API server has
    told the writer about them already. `moorage_api.reading` says which there were.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        use_attribute_docstrings=True,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()
    """Admission rules over several fields, kept by the API server."""

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Add the model's rules to its schema."""
        json_schema = handler(schema)
        if cls.rules:
            handler.resolve_ref_schema(json_schema)[VALIDATIONS] = [rule.as_json() for rule in cls.rules]
        return json_schema

    def to_api(self) -> dict[str, Any]:
        """The value as it is written to the API server: camelCase, without what is absent."""
        written: dict[str, Any] = _without_empty_lists(self.model_dump(mode="json", exclude_none=True))
        return written


def _without_empty_lists(value: Any) -> Any:
    """An absent list and an empty one mean the same, and only the absent one is owned by nobody."""
    if isinstance(value, dict):
        return {key: _without_empty_lists(item) for key, item in value.items() if item != []}
    if isinstance(value, list):
        return [_without_empty_lists(item) for item in value]
    return value
