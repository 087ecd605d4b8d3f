"""Maps inside frozen models, which must be values, too: they hash, and nothing changes them."""

from collections.abc import Mapping
from typing import Annotated, Any, NoReturn

from pydantic import AfterValidator


class FrozenDict(dict[str, Any]):
    """A dict that cannot be changed, and neither can what is in it."""

    def __hash__(self) -> int:  # type: ignore[override]
        """By content."""
        return hash(frozenset(self.items()))

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("this map belongs to a frozen value")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse


def frozen(value: Any) -> Any:
    """The same value, with maps and lists that cannot be changed."""
    if isinstance(value, Mapping):
        return FrozenDict((name, frozen(item)) for name, item in value.items())
    return tuple(frozen(item) for item in value) if isinstance(value, list | tuple) else value


FREE = AfterValidator(frozen)
"""Freezes what a map field holds."""

Fragment = Annotated[dict[str, Any], FREE]
"""A part of a Kubernetes object whose inside is the API server's business."""
