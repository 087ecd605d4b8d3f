"""Takes checked values out of a JSON object, with the messages that a client's author needs.

Written by hand, because the messages are the interface: they name the parameter, what was expected and what came.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from moorage_runtime.server.errors import InvalidRequestError

_KINDS: dict[type, str] = {
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}

_SHOWN = 80


def kind_of(value: object) -> str:
    """What a JSON value is, in words: `a string`, `an array`."""
    return _KINDS[type(value)]


def wrong_type(param: str, expected: str, value: object) -> InvalidRequestError:
    """The error for a value of the wrong JSON type."""
    return InvalidRequestError(
        f"Invalid type for '{param}': expected {expected}, but got {kind_of(value)} instead.",
        param=param,
        code="invalid_type",
    )


def wrong_value(param: str, expected: str, value: object) -> InvalidRequestError:
    """The error for a value of the right type that is not allowed; a long value is shown by its beginning."""
    return _not_allowed(param, expected, shortened(repr(value)))


def wrong_size(param: str, expected: str, size: int) -> InvalidRequestError:
    """The error for so many of something where `expected` (`1 to 5 characters`) are allowed."""
    return _not_allowed(param, expected, str(size))


def _not_allowed(param: str, expected: str, got: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"Invalid value for '{param}': expected {expected}, but got {got} instead.", param=param, code="invalid_value"
    )


def shortened(text: str) -> str:
    """Text that a client sent, short enough to be sent back."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


class Fields:
    """A JSON object whose fields are taken out by name; null counts as absent, as in OpenAI's API.

    `refuse_rest` then names the first field that nobody asked for.
    """

    def __init__(self, values: Mapping[str, Any], prefix: str = "") -> None:
        self._values = values
        self._prefix = prefix
        self._known: set[str] = set()

    def raw(self, name: str) -> Any:
        """The value as it came, None if absent."""
        self._known.add(name)
        return self._values.get(name)

    def required(self, name: str) -> Any:
        """The value as it came; an error if it is absent."""
        value = self.raw(name)
        if value is None:
            param = self._prefix + name
            raise InvalidRequestError(
                f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
            )
        return value

    def string(self, name: str) -> str:
        """A required string."""
        value = self.required(name)
        if not isinstance(value, str):
            raise wrong_type(self._prefix + name, "a string", value)
        return value

    def text(self, name: str, longest: int) -> str | None:
        """A string of 1 to `longest` characters."""
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise wrong_type(self._prefix + name, "a string", value)
        if not 1 <= len(value) <= longest:
            raise wrong_size(self._prefix + name, f"1 to {longest} characters", len(value))
        return value

    def boolean(self, name: str, *, default: bool) -> bool:
        """A boolean."""
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise wrong_type(self._prefix + name, "a boolean", value)
        return value

    def integer(self, name: str, low: int, high: int) -> int | None:
        """An integer from `low` to `high`, both included."""
        value = self.raw(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong_type(self._prefix + name, "an integer", value)
        if not low <= value <= high:
            raise wrong_value(self._prefix + name, f"an integer from {low} to {high}", value)
        return value

    def number(self, name: str, low: float, high: float, *, above: bool = False) -> float | None:
        """A number from `low` (excluded where `above`) to `high`."""
        value = self.raw(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong_type(self._prefix + name, "a number", value)
        if not low <= value <= high or (above and value == low):
            start = f"a number above {low:g}" if above else f"a number from {low:g}"
            raise wrong_value(self._prefix + name, f"{start} {'up ' if above else ''}to {high:g}", value)
        return float(value)

    def object(self, name: str) -> "Fields":
        """The fields of a nested object; those of an empty one if it is absent."""
        value = self.raw(name)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise wrong_type(self._prefix + name, "an object", value)
        return Fields(value, f"{self._prefix}{name}.")

    def only(self, name: str, allowed: Any) -> None:
        """A field that is known, and supported as far as it asks for what is done anyway: `allowed`, or nothing."""
        value = self.raw(name)
        if value is not None and (type(value) is not type(allowed) or value != allowed):
            param = self._prefix + name
            rest = "" if allowed is None else f" other than {orjson.dumps(allowed).decode()}"
            raise InvalidRequestError(
                f"'{param}'{rest} is not supported here.", param=param, code="unsupported_parameter"
            )

    def refuse_rest(self, ignored: frozenset[str] = frozenset()) -> None:
        """Refuse fields that were neither asked for nor are known to make no difference."""
        for name, value in self._values.items():
            if value is not None and name not in self._known and name not in ignored:
                param = self._prefix + shortened(name)
                raise InvalidRequestError(
                    f"Unrecognized request argument supplied: '{param}'.", param=param, code="unknown_parameter"
                )
