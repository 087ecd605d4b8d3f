"""Every way in which a request can fail, in OpenAI's shape.

    ApiError                     status  type                    code
    ├── InvalidRequestError      400     invalid_request_error   (given)
    │   ├── ContextTooLongError  400     invalid_request_error   context_length_exceeded
    │   ├── ModelNotFoundError   404     invalid_request_error   model_not_found
    │   ├── BodyTimeoutError     408     invalid_request_error   body_timeout
    │   └── BodyTooLargeError    413     invalid_request_error   request_too_large
    ├── QueueFullError           429     rate_limit_error        queue_full
    ├── EngineFailedError        500     server_error            engine_failed
    ├── NotReadyError            503     server_error            (the reason)
    ├── BodiesBusyError          503     server_error            bodies_busy
    └── RequestTimeoutError      504     timeout_error           timeout

Source: OpenAI's error object, ``{"error": {"message", "type", "param", "code"}}``.
"""

from typing import Any, ClassVar


class ApiError(Exception):
    """A failure that the client is told about; each subclass fixes the HTTP status and OpenAI's `type`."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code

    def body(self) -> dict[str, Any]:
        """The error as OpenAI's clients read it."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error}

    @property
    def headers(self) -> dict[str, str]:
        """Extra headers of the answer."""
        return {}


class InvalidRequestError(ApiError):
    """The request itself is wrong: the client must change it."""

    status = 400
    type = "invalid_request_error"


class ContextTooLongError(InvalidRequestError):
    """Prompt, or prompt plus the tokens asked for, do not fit the model's context."""

    def __init__(self, *, context: int, prompt: int, asked: int | None, param: str, cut: bool = False) -> None:
        """`cut`: the prompt has more tokens than were counted."""
        if asked is None:
            wants = f"your prompt has {'more than ' if cut else ''}{prompt} tokens and leaves no room for an answer"
        else:
            wants = f"you asked for {prompt + asked} tokens ({prompt} in the prompt, {asked} in the completion)"
        super().__init__(
            f"This model's maximum context length is {context} tokens, but {wants}. "
            "Shorten the prompt or ask for fewer tokens.",
            param=param,
            code="context_length_exceeded",
        )


class ModelNotFoundError(InvalidRequestError):
    """`model` names something that is not served here."""

    status = 404

    def __init__(self, asked: str, served: str) -> None:
        super().__init__(
            f"The model '{asked}' does not exist here. This server has '{served}'.",
            param="model",
            code="model_not_found",
        )


class BodyTooLargeError(InvalidRequestError):
    """The body is over the limit of `--max-body-mib`."""

    status = 413

    def __init__(self, limit: int) -> None:
        super().__init__(f"The request's body is larger than {limit} bytes.", code="request_too_large")


class BodyTimeoutError(InvalidRequestError):
    """The body took too long to arrive."""

    status = 408

    def __init__(self, seconds: float, part: int, spell: float) -> None:
        """`part`: bytes of a large one that have to come in each `spell` (seconds)."""
        super().__init__(
            f"The request's body did not arrive within {seconds:g} s, or was large and brought no {part} bytes more "
            f"within {spell:g} s.",
            code="body_timeout",
        )

    @property
    def headers(self) -> dict[str, str]:
        """What may still come is no next request."""
        return {"connection": "close"}


class QueueFullError(ApiError):
    """More requests wait than the queue holds."""

    status = 429
    type = "rate_limit_error"

    def __init__(self, waiting: int, retry_after: int = 1) -> None:
        super().__init__(
            f"The model is busy: {waiting} requests already wait. Try again in a moment.", code="queue_full"
        )
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        """When to come back."""
        return {"retry-after": str(self.retry_after)}


class EngineFailedError(ApiError):
    """The engine ended, or gave this request up; the client may try again elsewhere."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="engine_failed")


class NotReadyError(ApiError):
    """The server takes no requests now: it loads, warms up or drains."""

    status = 503

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message, code=reason)
        self.reason = reason

    @property
    def headers(self) -> dict[str, str]:
        """When to come back."""
        return {"retry-after": "1"}


class BodiesBusyError(ApiError):
    """Other large bodies are being taken in, and go on for too long."""

    status = 503

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"Other large requests are being taken in, and the turn of this one did not come within {seconds:g} s. "
            "Try again in a moment.",
            code="bodies_busy",
        )

    @property
    def headers(self) -> dict[str, str]:
        """When to come back."""
        return {"retry-after": "1"}


class RequestTimeoutError(ApiError):
    """The request's time was over before it had a token; an answer that has begun ends with `length` instead."""

    status = 504
    type = "timeout_error"

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"No token was generated within the time limit of this request ({seconds:.1f} s). "
            "Allow more with 'timeout', or try again when the model is less busy.",
            code="timeout",
        )

    @property
    def headers(self) -> dict[str, str]:
        """OpenAI's clients repeat what failed with 504 by themselves; this client's time is over."""
        return {"x-should-retry": "false"}
