"""Objects of the API server -> models, lenient: what is unknown is ignored and named, what is unusable is explained.

The API server has checked an object when it was admitted, by the schema of that day. An older or newer schema may have
let through what this version does not know; that must become a condition for the user, never a crash.
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from moorage_api.llmdeployment import LLMDeployment, Metadata, Spec

ModelT = TypeVar("ModelT", bound=BaseModel)


@dataclass(frozen=True)
class Problem:
    """What is wrong with one field."""

    field: str
    """Its path, such as `spec.engine.env[0].name`."""
    message: str
    """Without the value: one that is refused for carrying a credential must not be repeated in a status or a log."""


class InvalidObjectError(ValueError):
    """The object cannot be used; the text names each wrong field and says how it is wrong, on one line."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(f"{problem.field}: {problem.message}" for problem in problems))
        self.problems = problems


@dataclass(frozen=True)
class Parsed:
    """A deployment, and what was left aside on the way."""

    deployment: LLMDeployment
    unknown_fields: tuple[str, ...] = ()
    """Paths in spec that this version does not know, such as `spec.model.adapters`; they were ignored."""


def parse(raw: Mapping[str, Any]) -> Parsed:
    """Read an LLMDeployment as the API server gives it, without its status.

    The status is the operator's own report, made anew from what is; none of its words may keep a spec from being
    served.

    Raises:
        InvalidObjectError: spec (or metadata) cannot be used.
    """
    deployment = LLMDeployment(
        metadata=_validated(Metadata, raw.get("metadata"), "metadata"),
        spec=_validated(Spec, raw.get("spec"), "spec"),
    )
    return Parsed(deployment, tuple(_unknown(Spec, raw["spec"], "spec")))


def _validated(model: type[ModelT], raw: Any, path: str) -> ModelT:
    try:
        return model.model_validate(raw, by_alias=True, by_name=False)
    except ValidationError as error:
        raise InvalidObjectError(tuple(_problems(error, path))) from None  # its text would repeat the values


def _problems(error: ValidationError, path: str) -> Iterator[Problem]:
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        place = path + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"])
        yield Problem(place, problem["msg"].removeprefix("Value error, "))


def _unknown(model: type[BaseModel], raw: Mapping[str, Any], path: str) -> Iterator[str]:
    fields = _fields(model)
    for key, value in raw.items():
        if key not in fields:
            yield f"{path}.{key}"
            continue
        for inner in fields[key]:
            for place, item in _items(value, f"{path}.{key}"):
                yield from _unknown(inner, item, place)


@functools.cache
def _fields(model: type[BaseModel]) -> dict[str, tuple[type[BaseModel], ...]]:
    """The fields of a model by the names that the API has for them, each with the models inside it."""
    fields = model.model_fields.items()
    return {field.alias or name: tuple(_models_in(field.annotation)) for name, field in fields}


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models inside an annotation such as `tuple[EnvVar, ...]` or `Engine | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def _items(value: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The objects in a value: itself, or those of a list."""
    if isinstance(value, Mapping):
        yield path, value
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _items(item, f"{path}[{index}]")
