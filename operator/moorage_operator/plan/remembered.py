"""Parts of the status that was last written, read back.

Another version of the operator may have written them, or a person may have put an old backup back: what this version
cannot read is as if it had not been there. It must never keep a deployment from being looked after.
"""

from typing import TypeVar

from pydantic import BaseModel, ValidationError

ModelT = TypeVar("ModelT", bound=BaseModel)


def remembered(model: type[ModelT], raw: object) -> ModelT | None:
    """The part as a value; None where it is not there, or is not understood."""
    if raw is None:
        return None
    try:
        return model.model_validate(raw)
    except ValidationError:
        return None
