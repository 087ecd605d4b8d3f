"""Label selectors."""

import pytest

from moorage_gateway import selector
from moorage_gateway.selector import BadSelectorError

LABELS = {"team": "a", "tier": "gold", "example.com/x": ""}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "team=a",
        "team==a",
        "team = a, tier=gold",
        "team!=b",
        "other!=b",
        "team in (b, a)",
        "team notin (b,c),tier",
        "other notin (b)",
        "!other",
        "example.com/x",
        "example.com/x=",
        "team in (a),tier in (gold,silver),!other",
    ],
)
def test_selects(text):
    assert selector.parse(text)(LABELS)


@pytest.mark.parametrize(
    "text", ["team=b", "other=b", "team!=a", "team in (b)", "team notin (a,b)", "other", "!team", "team,tier=silver"]
)
def test_does_not_select(text):
    assert not selector.parse(text)(LABELS)


@pytest.mark.parametrize(
    "text", ["=a", "team=a,", "team in a", "team in (a", "team=a b", "team>3", "team in (a b)", "é"]
)
def test_what_is_none_says_so(text):
    with pytest.raises(BadSelectorError):
        selector.parse(text)
