"""Why a model is not computed; see `moorage_runtime.engine.errors`."""

from moorage_runtime.engine.errors import StartError


class UnsupportedModelError(StartError):
    """The model's files are none that this runtime computes, or none that it loads safely."""

    reason = "UnsupportedModel"


class InsufficientMemoryError(StartError):
    """Weights, working memory and one request of the context length do not fit the memory limit together."""

    reason = "InsufficientMemory"


class ExchangeError(StartError):
    """A rank did not come to an exchange with the others, or to the meeting before the first one."""
