"""Renders a conversation to the text that the model was trained on.

Templates come with the model and are code written by strangers: they run in jinja2's immutable sandbox, which keeps
them from attributes and from changing what they are given.

Source: Hugging Face chat templates (`raise_exception`, `strftime_now`, `tojson`, `{% generation %}`, loop controls).
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from moorage_runtime.server.errors import InvalidRequestError


class TemplateError(ValueError):
    """The model's template itself is broken."""


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}` marks answers for training; here its inside is simply rendered."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now(tz=UTC).strftime(form)


def _tojson(value: Any, indent: int | None = None) -> str:
    # jinja2's own filter escapes HTML, which would put &lt; into prompts.
    return json.dumps(value, ensure_ascii=False, indent=indent)


class ChatTemplate:
    """One model's compiled template."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """`special_tokens`: `bos_token` and its like, as the template's variables.

        Raises:
            TemplateError: the source is not valid jinja2.
        """
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(f"the model's chat template is not valid: {error}") from error
        self._special_tokens = dict(special_tokens)

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The prompt for the next answer to `messages`.

        Raises:
            InvalidRequestError: the template refuses these messages (roles in an order that the model does not know).
        """
        try:
            return self._template.render(messages=messages, add_generation_prompt=True, **self._special_tokens)
        except (jinja2.TemplateError, TypeError, KeyError, ValueError) as error:
            raise InvalidRequestError(
                f"The model's chat template does not accept these messages: {error}",
                param="messages",
                code="invalid_messages",
            ) from error
