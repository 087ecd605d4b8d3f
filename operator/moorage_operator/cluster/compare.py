"""Whether a live object already is what we want: our fields are in it, as the API server writes them.

The API server fills in defaults, rewrites quantities (`1000m` becomes `1`) and drops empty values, so equality would
see a difference for ever and every resync would write.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from moorage_api import names
from moorage_api.quantity import quantity_value
from moorage_operator.manifest import MAPS

_QUANTITIES: Final = frozenset({"requests", "limits", "sizeLimit"})
_OURS: Final = f"{names.GROUP}/"
"""Annotations that begin so are ours: one that is not wanted any more is a difference, though the rest is there."""
_WHOLE: Final = frozenset({"selector", "nodeSelector", "data"})
"""Maps that belong to us as a whole: a key that somebody added is a difference."""


def includes(live: Any, wanted: Any) -> bool:
    """Whether everything in `wanted` is in `live` already; what else is in `live` is not ours to judge."""
    return _includes(live, wanted, ())


def _includes(live: Any, wanted: Any, path: tuple[str, ...]) -> bool:
    # Most parts are as they were written; only around what the API server has added is it worth to look closer.
    if live == wanted or (_is_empty(wanted) and live is None):
        return True
    if isinstance(wanted, MAPS):
        return _includes_map(live, wanted, path)
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        return _includes_list(live, wanted, path)
    if _QUANTITIES.intersection(path[-2:]):
        return _same_amount(live, wanted)
    return False


def _includes_map(live: Any, wanted: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    if live is None:
        return not wanted
    if not isinstance(live, MAPS):
        return False
    if path and path[-1] in _WHOLE and set(live) != set(wanted):
        return False
    if path and path[-1] == "metadata" and _ours(live) - _ours(wanted):
        return False
    return all(_includes(live.get(name), value, (*path, name)) for name, value in wanted.items())


def _includes_list(live: Any, wanted: Sequence[Any], path: tuple[str, ...]) -> bool:
    if live is None:
        return not wanted
    if not isinstance(live, Sequence) or isinstance(live, str):
        return False
    if wanted and all(isinstance(item, Mapping) and "name" in item for item in wanted):
        by_name = {item.get("name"): item for item in live if isinstance(item, Mapping)}
        return all(_includes(by_name.get(item["name"]), item, path) for item in wanted)
    return len(live) == len(wanted) and all(_includes(a, b, path) for a, b in zip(live, wanted, strict=True))


def _ours(metadata: Mapping[str, Any]) -> set[str]:
    return {name for name in metadata.get("annotations") or () if name.startswith(_OURS)}


def _is_empty(value: object) -> bool:
    """What the API server leaves out when it stores an object."""
    return value is None or value is False or value == ""


def _same_amount(live: object, wanted: object) -> bool:
    try:
        return quantity_value(str(live)) == quantity_value(str(wanted))
    except ValueError:
        return False
