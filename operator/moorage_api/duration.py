"""Spans of time and shares as a person writes them: `2m`, `1h30m`, `500ms`; `20%`.

Source: https://pkg.go.dev/time#ParseDuration (the form that Kubernetes writes durations in)
"""

import re
from datetime import timedelta
from typing import Annotated, Final

from pydantic import StringConstraints

from moorage_api.rules import Matches

MAX_DURATION_LENGTH: Final = 16

DURATION: Final = "(?:[0-9]+(?:ms|s|m|h))+"
PERCENTAGE: Final = "[0-9]+(?:[.][0-9]+)?%"

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

Duration = Annotated[
    str,
    StringConstraints(max_length=MAX_DURATION_LENGTH),
    Matches(DURATION, "write a span of time with its unit, such as 30s, 2m or 1h30m"),
]
"""A span of time, not negative."""

Percentage = Annotated[
    str,
    StringConstraints(max_length=MAX_DURATION_LENGTH),
    Matches(PERCENTAGE, "write a percentage, such as 20% or 0.5%"),
]
"""A share, not negative; 100% is all."""


def duration_value(text: str) -> timedelta:
    """The span that a duration stands for.

    Raises:
        ValueError: the text is not a duration. A parsed LLMDeployment never has one that is not.
    """
    if re.fullmatch(DURATION, text) is None:
        raise ValueError(f"{text!r} is not a duration")
    parts = re.findall("([0-9]+)(ms|s|m|h)", text)
    return timedelta(seconds=sum(int(count) * _SECONDS[unit] for count, unit in parts))


def percentage_value(text: str) -> float:
    """The share that a percentage stands for: 0.2 for `20%`.

    Raises:
        ValueError: the text is not a percentage.
    """
    if re.fullmatch(PERCENTAGE, text) is None:
        raise ValueError(f"{text!r} is not a percentage")
    return float(text[:-1]) / 100
