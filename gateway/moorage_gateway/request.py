"""Reads a client's request: limits first, then the few fields that routing needs."""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import orjson

from moorage_api import names
from moorage_gateway.answers import Receive, Scope, bad_request

_PASSED_ON: Final = {b"x-request-id": "x-request-id", b"traceparent": "traceparent", b"tracestate": "tracestate"}
"""Of a client's headers, only those that tie its request together across services go on. All others end here:
hop-by-hop and framing headers, which could desynchronise the next hop; ours, which a replica believes; cookies and
keys, which are no business of a pod."""

_SESSION: Final = ("safety_identifier", "user")
"""OpenAI's field for the end user, and the one that it replaces. Not `prompt_cache_key`: many users may share one where
their prompts begin alike, and would then go to one revision together, whatever its weight."""


class ClientGoneError(Exception):
    """The client went away before it had sent its request."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may send: bytes of head and body, and how long it may take over the body."""

    header_bytes: int
    body_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Inbound:
    """A request that can be routed.

    Attributes:
        path: One of the API's paths.
        name: The name that the client used for the model.
        session: Who asks, in the client's word: requests of one session stay with one revision. Empty: nobody said.
        is_stream: Whether the client wants its answer as a stream of events.
        headers: What goes to the replica, besides the body's framing.
        body: As the client sent it.
    """

    path: str
    name: str
    session: str
    is_stream: bool
    headers: dict[str, str]
    body: bytes


async def read(scope: Scope, receive: Receive, limits: Limits) -> Inbound:
    """Read a completion request.

    Raises:
        Refused: it breaks a limit, is no JSON object, or names no model.
        ClientGoneError: nobody is left to answer.
    """
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    _check_head(headers, limits)
    body = await _read_body(headers, receive, limits)
    fields = _parsed(body)
    name = _model_name(fields)
    passed = {"content-type": "application/json", names.MODEL_HEADER: name}
    for key, value in headers:
        if (known := _PASSED_ON.get(key)) is not None and value.isascii():
            passed[known] = value.decode("ascii")
    return Inbound(scope["path"], name, _session(fields), fields.get("stream") is True, passed, body)


def _check_head(headers: list[tuple[bytes, bytes]], limits: Limits) -> None:
    if sum(len(name) + len(value) for name, value in headers) > limits.header_bytes:
        message = f"The request's headers are longer than {limits.header_bytes} bytes."
        raise bad_request(message, status=431, code="headers_too_large")


async def _read_body(headers: list[tuple[bytes, bytes]], receive: Receive, limits: Limits) -> bytes:
    for name, value in headers:
        if name == b"content-length" and int(value) > limits.body_bytes:
            raise _too_large(limits)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message["body"]
        if len(body) > limits.body_bytes:
            raise _too_large(limits)
        return body
    try:
        async with asyncio.timeout(limits.seconds):
            return await _read_rest(message, receive, limits)
    except TimeoutError as error:
        text = f"The request's body did not arrive within {limits.seconds:g} s."
        raise bad_request(text, status=408, code="body_timeout") from error


async def _read_rest(message: Any, receive: Receive, limits: Limits) -> bytes:
    body = bytearray()
    while True:
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        body += message["body"]
        if len(body) > limits.body_bytes:
            raise _too_large(limits)
        if not message.get("more_body"):
            return bytes(body)
        message = await receive()


def _too_large(limits: Limits) -> Exception:
    return bad_request(
        f"The request's body is longer than {limits.body_bytes} bytes.", status=413, code="body_too_large"
    )


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"The request's body is not valid JSON: {error}.", code="invalid_json") from error
    if not isinstance(parsed, dict):
        raise bad_request("The request's body has to be a JSON object.", code="invalid_json")
    return parsed


def _model_name(fields: dict[str, Any]) -> str:
    name = fields.get("model")
    if name is None:
        raise bad_request("You must provide a model parameter.", param="model", code="model_missing")
    if not isinstance(name, str):
        raise bad_request("`model` has to be a string.", param="model", code="model_invalid")
    return name


def _session(fields: dict[str, Any]) -> str:
    for each in _SESSION:
        value = fields.get(each)
        if isinstance(value, str) and value:
            return value
    return ""
