"""What the gateway itself says to clients: whole answers, errors in OpenAI's shape, and refusals as exceptions.

Refused                   the request ends here, with this answer
"""

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from moorage_gateway.table import Ambiguous, Model

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_JSON: Final = (b"content-type", b"application/json")
RETRY_SECONDS: Final = 1
"""Where another gateway can answer, or this one soon: one that has just started reads its routes within a second."""
_WAITS: Final = {
    "held_too_many": " As many requests wait for it already as may.",
    "held_too_much": " The requests that wait at this gateway take all the memory that they may.",
    "held_too_long": " The request has waited for it for as long as it may.",
    "leaving": " This gateway is about to go: another one waits on.",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; its length header is added when it is sent."""

    status: int
    headers: Headers
    body: bytes


class Refused(Exception):  # noqa: N818 - not an error of ours: the outcome of a request
    """The request ends here.

    Attributes:
        reason: A word of a closed set, for the metrics.
        answer: What the client gets.
        told: Whether it has got it already.
    """

    def __init__(self, reason: str, answer: Answer) -> None:
        super().__init__(reason)
        self.reason = reason
        self.answer = answer
        self.told = False


async def send_answer(send: Send, answer: Answer) -> None:
    """Send a whole answer."""
    length = (b"content-length", b"%d" % len(answer.body))
    await send({"type": "http.response.start", "status": answer.status, "headers": [*answer.headers, length]})
    await send({"type": "http.response.body", "body": answer.body})


def ok(value: object) -> Answer:
    """200 with JSON."""
    return Answer(200, [_JSON], orjson.dumps(value))


def error_body(message: str, kind: str, *, code: str | None = None, param: str | None = None) -> bytes:
    """An error in OpenAI's shape."""
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


def bad_request(message: str, *, param: str | None = None, status: int = 400, code: str | None = None) -> Refused:
    """The client's request is wrong and will be wrong again."""
    return Refused(code or "bad_request", _error(status, message, "invalid_request_error", code=code, param=param))


def unknown_path(path: str) -> Refused:
    """404 for what is no part of the API."""
    message = f"There is no {path} here. This gateway serves /v1/models, /v1/chat/completions and /v1/completions."
    return bad_request(message, status=404, code="unknown_path")


def wrong_method(method: str, path: str, allowed: str) -> Refused:
    """405, naming the method that works."""
    answer = _error(405, f"{path} takes {allowed}, not {method}.", "invalid_request_error", code="method_not_allowed")
    return Refused("method_not_allowed", Answer(405, [*answer.headers, (b"allow", allowed.encode())], answer.body))


def unknown_model(name: str, found: Ambiguous | None) -> Refused:
    """404: nothing has that name, or several namespaces do."""
    if found is None:
        message = f"The model `{name}` does not exist. GET /v1/models lists the models that can serve."
    else:
        message = f"The model `{name}` exists in more than one namespace: use {' or '.join(found.full_names)}."
    return bad_request(message, param="model", status=404, code="model_not_found")


def model_gone() -> Refused:
    """404: the model went while a request waited for it."""
    message = "The model was removed while the request waited for a replica of it."
    return bad_request(message, param="model", status=404, code="model_not_found")


def not_ready(model: Model, reason: str, retry_after: int | None) -> Refused:
    """503: the model is known, but nothing serves it; its own Ready condition says why.

    Args:
        model: Which.
        reason: Why the request does not wait (any longer), as `holding` says it.
        retry_after: When to ask again, in seconds; None where nobody can tell.
    """
    message = f"The model `{model.full_name}` is not ready: {model.reason}: {model.message}{_WAITS.get(reason, '')}"
    return Refused(reason, _unavailable(message, "model_not_ready", retry_after))


def cut_short() -> Answer:
    """503 of a gateway that goes before the answer is complete."""
    message = "This gateway had to go before the answer was complete: ask again, and another one takes it."
    return _unavailable(message, "gateway_leaving", RETRY_SECONDS)


def no_routes() -> Refused:
    """503 of a gateway that has just started."""
    answer = _unavailable("This gateway has not read its routes yet.", "gateway_starting", RETRY_SECONDS)
    return Refused("starting", answer)


def upstream_failed(model: Model, what: str) -> Answer:
    """502: the replica, and the second one where there is one, failed before an answer."""
    return _error(502, upstream_message(model, what), "server_error", code="replica_failed")


def upstream_message(model: Model, what: str) -> str:
    """The sentence for a client whose replica failed."""
    return f"The replica of `{model.full_name}` that served this request {what}."


def _unavailable(message: str, code: str, retry_after: int | None) -> Answer:
    answer = _error(503, message, "service_unavailable", code=code)
    if retry_after is None:
        return answer
    return Answer(503, [*answer.headers, (b"retry-after", b"%d" % retry_after)], answer.body)


def _error(status: int, message: str, kind: str, *, code: str | None, param: str | None = None) -> Answer:
    return Answer(status, [_JSON], error_body(message, kind, code=code, param=param))
