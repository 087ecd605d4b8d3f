"""Parts of what was written earlier, read back.

Another version of the operator may have written them, or a person may have put an old backup back: what this version
cannot read is as if it had not been there. It must never keep a deployment from being looked after.
"""

from datetime import datetime
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from moorage_api.base import ApiModel

ModelT = TypeVar("ModelT", bound=BaseModel)


def remembered(model: type[ModelT], raw: object) -> ModelT | None:
    """The part as a value; None where it is not there, or is not understood."""
    if raw is None:
        return None
    try:
        return model.model_validate(raw)
    except ValidationError:
        return None


def all_remembered(model: type[ModelT], raw: object) -> tuple[ModelT, ...]:
    """Those of a list that are understood; none where it is no list."""
    found = (remembered(model, one) for one in raw) if isinstance(raw, list | tuple) else ()
    return tuple(one for one in found if one is not None)


def remembered_moment(raw: object) -> datetime | None:
    """A time (RFC 3339); None where it is not there, or is not understood."""
    try:
        moment = datetime.fromisoformat(raw) if isinstance(raw, str) else None
    except ValueError:
        return None
    return moment if moment is not None and moment.tzinfo is not None else None


class Row(ApiModel):
    """A row of status.revisions, as far as it is looked at again: whichever roles another version may know."""

    number: int
    """The revision."""
    weight: int = 0
    """Its share of new requests, in percent."""
    replicas: int = 0
    """Those that it was to have."""
    model_digest: str | None = None
    """Of its model's content, as a replica said."""
