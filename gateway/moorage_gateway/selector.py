"""Label selectors as the API server's lists take them. Pure.

Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

Labels = Mapping[str, str]
Selects = Callable[[Labels], bool]

_NAME: Final = r"(?:[A-Za-z0-9.-]+/)?[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_VALUE: Final = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)?"
_EQUALS: Final = re.compile(rf"({_NAME})\s*(==|=|!=)\s*({_VALUE})")
_SET: Final = re.compile(rf"({_NAME})\s+(in|notin)\s*\(([^()]*)\)")
_EXISTS: Final = re.compile(rf"(!?)\s*({_NAME})")
_COMMA: Final = re.compile(r",(?![^()]*\))")


class BadSelectorError(ValueError):
    """It is none; the message says where."""


def parse(text: str) -> Selects:
    """What a selector selects; an empty one selects all.

    Raises:
        BadSelectorError: as it says.
    """
    wanted = [_requirement(part.strip()) for part in _COMMA.split(text)] if text.strip() else []
    return lambda labels: all(each(labels) for each in wanted)


def _requirement(text: str) -> Selects:
    if found := _EQUALS.fullmatch(text):
        return _one_of(found[1], frozenset({found[3]}), inside=found[2] != "!=")
    if found := _SET.fullmatch(text):
        values = frozenset(value.strip() for value in found[3].split(","))
        if not all(re.fullmatch(_VALUE, value) for value in values):
            raise BadSelectorError(f"{text!r}: not every value could be a label's")
        return _one_of(found[1], values, inside=found[2] == "in")
    if found := _EXISTS.fullmatch(text):
        name, wanted = found[2], not found[1]
        return lambda labels: (name in labels) is wanted
    raise BadSelectorError(f"{text!r} is no requirement of a label selector")


def _one_of(name: str, values: frozenset[str], *, inside: bool) -> Selects:
    """A label that is missing is none of them."""
    return lambda labels: (labels.get(name) in values) is inside
