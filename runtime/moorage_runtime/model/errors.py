"""Why an engine does not start, or ends: each error is one of the protocol's reasons and a sentence for people."""

from moorage_runtime.engine.messages import FailureReason


class StartError(Exception):
    """The engine cannot start, and nothing but another resource or another model will change that."""

    reason: FailureReason = "EngineFailed"


class UnsupportedModelError(StartError):
    """The model's files are none that this runtime computes, or none that it loads safely."""

    reason = "UnsupportedModel"


class InsufficientMemoryError(StartError):
    """Weights, working memory and one request of the context length do not fit the memory limit together."""

    reason = "InsufficientMemory"


class ExchangeError(Exception):
    """A rank did not come to an exchange with the others, within a step."""


class GroupError(StartError):
    """The ranks of a group are not all there, or no longer: in the words of one of them, or as it is seen."""

    def __init__(self, message: str, reason: FailureReason = "EngineFailed") -> None:
        super().__init__(message)
        self.reason = reason
