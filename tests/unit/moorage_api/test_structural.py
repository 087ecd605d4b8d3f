"""Pydantic's JSON schema -> structural schema: what is translated, and what its author is told at once."""

from typing import Annotated, Any, ClassVar

import pytest
from pydantic import Field, StringConstraints

from moorage_api.base import ApiModel
from moorage_api.lists import SET, map_by
from moorage_api.quantity import Quantity
from moorage_api.rules import Excludes, Matches, Rule
from moorage_api.structural import UnsupportedSchemaError, check_bounds, structural


class Inner(ApiModel):
    """Inner words."""

    name: Annotated[str, StringConstraints(max_length=5), Matches("[a-z]+", "write small letters")]
    """Outer words,
    on two lines.

    And a paragraph.
    """
    size: int = 3


class Outer(ApiModel):
    rules: ClassVar[tuple[Rule, ...]] = (Rule("has(self.inner)", "needs inner"),)

    inner: Inner | None = None
    filled: Inner = Inner(name="a")
    items_by_name: Annotated[tuple[Inner, ...], Field(max_length=2), map_by("name")] = ()
    words: Annotated[tuple[str, ...], SET] = ()
    amount: Quantity | None = None
    number_of: Annotated[int, Field(ge=1, le=9)] = 2


INNER = {
    "description": "Inner words.",
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {
            "description": "Outer words, on two lines.\n\nAnd a paragraph.",
            "type": "string",
            "maxLength": 5,
            "x-kubernetes-validations": [{"rule": "self.matches('^(?:[a-z]+)$')", "message": "write small letters"}],
        },
        "size": {"type": "integer", "default": 3},
    },
}


def of(model: type[ApiModel]) -> dict[str, Any]:
    return structural(model.model_json_schema(by_alias=True))


def field(name: str) -> Any:
    return of(Outer)["properties"][name]


def test_a_reference_is_put_in_place_and_an_optional_one_is_just_not_required():
    assert field("inner") == INNER
    assert "required" not in of(Outer)


def test_a_default_object_is_kept():
    assert field("filled") == {**INNER, "default": {"name": "a", "size": 3}}


def test_lists_say_how_they_merge():
    assert field("itemsByName") == {
        "type": "array",
        "maxItems": 2,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "items": INNER,
    }
    assert field("words") == {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}


def test_a_quantity_is_a_number_or_text():
    amount = field("amount")
    assert amount["x-kubernetes-int-or-string"] is True
    assert "type" not in amount
    assert "string(self).matches" in amount["x-kubernetes-validations"][0]["rule"]


def test_bounds_and_defaults_are_kept():
    assert field("numberOf") == {"type": "integer", "minimum": 1, "maximum": 9, "default": 2}


def test_rules_over_several_fields_stand_at_the_object():
    assert of(Outer)["x-kubernetes-validations"] == [{"rule": "has(self.inner)", "message": "needs inner"}]


def test_a_rule_may_be_about_texts_with_a_prefix_only():
    class Prefixed(ApiModel):
        text: Annotated[str, Matches("a:[0-9]+", "digits", only_if_prefix="a:"), Excludes("x", "no x")]

    assert [rule["rule"] for rule in of(Prefixed)["properties"]["text"]["x-kubernetes-validations"]] == [
        "!self.startsWith('a:') || self.matches('^(?:a:[0-9]+)$')",
        "!self.matches('x')",
    ]
    assert Prefixed(text="b:?").text == "b:?"
    with pytest.raises(ValueError, match="digits"):
        Prefixed(text="a:?")
    with pytest.raises(ValueError, match="no x"):
        Prefixed(text="xyz")


class Union(ApiModel):
    either: Inner | Outer


class Pair(ApiModel):
    pair: tuple[int, str]


class Chain(ApiModel):
    following: "Chain | None" = None


class Plain(ApiModel):
    words: tuple[str, ...]


class Patterned(ApiModel):
    word: Annotated[str, StringConstraints(pattern="a+")]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Union, r"\.either: a union; use optional fields beside one another, and a rule"),
        (Pair, r"\.pair: \['prefixItems'\] cannot be said in a structural schema"),
        (Chain, r"\.following: Chain contains itself"),
        (Plain, r"\.words: mark the list with SET or map_by"),
        (Patterned, r"\.word: \['pattern'\] cannot be said"),
    ],
)
def test_what_cannot_be_said_is_refused_with_its_place(model, message):
    with pytest.raises(UnsupportedSchemaError, match=message):
        of(model)


def test_a_string_or_list_without_bound_is_refused():
    check_bounds(INNER, "spec")
    with pytest.raises(UnsupportedSchemaError, match=r"spec\.words: a list without max_length"):
        check_bounds(of(Outer), "spec")
    with pytest.raises(UnsupportedSchemaError, match=r"spec\.list\[\]: a string without max_length"):
        check_bounds({"properties": {"list": {"type": "array", "maxItems": 1, "items": {"type": "string"}}}}, "spec")
