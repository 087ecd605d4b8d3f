"""Kubernetes quantities (`500m`, `4Gi`): their type in a resource, and their value.

Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

import re
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, WithJsonSchema

from moorage_api.rules import Matches

MAX_QUANTITY_LENGTH: Final = 32
GIB: Final = 2**30
"""Bytes."""

_UNITS: Final = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate(("k", "M", "G", "T", "P", "E"), start=1)},
    **{unit: Decimal(1024) ** power for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)},
}
_QUANTITY = "(?:[0-9]+(?:[.][0-9]+)?)(?:m|[kMGTPE]|[KMGTPE]i)?"


def integer_as_text(value: Any) -> Any:
    """`cpu: 2` and `cpu: "2"` are the same quantity."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Quantity = Annotated[
    str,
    BeforeValidator(integer_as_text),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": MAX_QUANTITY_LENGTH}),
    Matches(
        _QUANTITY,
        "write an amount such as 2 or 500m for CPU, and such as 512Mi or 4Gi for memory",
        subject="string(self)",
    ),
]
"""An amount, not negative, as a number or as text with a unit."""

MemorySize = Annotated[
    str,
    WithJsonSchema({"type": "string", "maxLength": MAX_QUANTITY_LENGTH}),
    Matches("[1-9][0-9]*(?:[MGT]i?)", "write a size of memory with its unit, such as 40Gi"),
]
"""A size of memory, more than nothing."""


def quantity_value(quantity: str) -> Decimal:
    """The number that a quantity stands for: cores, bytes or pieces.

    Raises:
        ValueError: the text is not a quantity. A parsed LLMDeployment never has one that is not.
    """
    match = re.fullmatch("([0-9.]+)([A-Za-z]*)", quantity)
    if re.fullmatch(_QUANTITY, quantity) is None or match is None:
        raise ValueError(f"{quantity!r} is not a quantity")
    return Decimal(match[1]) * _UNITS[match[2]]
