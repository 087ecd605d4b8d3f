"""Rules that the API server and the models both keep, written once.

`Matches` and `Excludes` are annotations of a string field: the CRD gets a CEL rule, pydantic a check, and both have the
same message. CEL rules are used instead of the schema's `pattern`, because only a rule can say what to write instead.
A rule over several fields is a `Rule` in `ApiModel.rules`, and is kept by the API server alone.

CEL's regular expressions are RE2: patterns here keep to what RE2 and `re` read alike, and need no backslash.
"""

import re
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

VALIDATIONS = "x-kubernetes-validations"


@dataclass(frozen=True)
class Rule:
    """A CEL expression over `self` that must hold, and what a person reads when it does not."""

    cel: str
    message: str

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Add the rule to the field's schema."""
        json_schema = handler(schema)
        json_schema.setdefault(VALIDATIONS, []).append(self.as_json())
        return json_schema

    def as_json(self) -> dict[str, str]:
        """One entry of `x-kubernetes-validations`."""
        return {"rule": self.cel, "message": self.message}


@dataclass(frozen=True)
class _Pattern:
    """A rule that compares the field's text with a regular expression."""

    pattern: str
    message: str
    only_if_prefix: str = ""
    """The rule is about texts that begin so; others are another rule's business."""

    def allows(self, text: str) -> bool:
        """Tell whether the text keeps the rule."""
        raise NotImplementedError

    def cel(self) -> str:
        """The same as `allows`, in CEL."""
        raise NotImplementedError

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check the text after the field's own type did."""
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Add the rule to the field's schema."""
        return Rule(self.cel(), self.message).__get_pydantic_json_schema__(schema, handler)

    def _checked(self, text: str) -> str:
        if text.startswith(self.only_if_prefix) and not self.allows(text):
            raise ValueError(self.message)
        return text

    def _guarded(self, cel: str) -> str:
        return f"!self.startsWith('{self.only_if_prefix}') || {cel}" if self.only_if_prefix else cel


@dataclass(frozen=True)
class Matches(_Pattern):
    """The whole text matches the pattern."""

    subject: str = "self"
    """The text in CEL; `string(self)` where the field may be a number, too."""

    def allows(self, text: str) -> bool:
        """Tell whether the whole text matches."""
        return re.fullmatch(self.pattern, text) is not None

    def cel(self) -> str:
        """RE2's `matches` searches unless it is anchored."""
        return self._guarded(f"{self.subject}.matches('^(?:{self.pattern})$')")


@dataclass(frozen=True)
class Excludes(_Pattern):
    """The pattern is found nowhere in the text."""

    def allows(self, text: str) -> bool:
        """Tell whether the pattern is absent."""
        return re.search(self.pattern, text) is None

    def cel(self) -> str:
        """The same search, by RE2."""
        return self._guarded(f"!self.matches('{self.pattern}')")
