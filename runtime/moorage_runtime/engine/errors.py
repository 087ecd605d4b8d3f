"""Why an engine does not start, or ends: each error is one of the protocol's reasons and a sentence for people."""

from moorage_runtime.engine.messages import FailureReason


class StartError(Exception):
    """The engine cannot start or go on, and nothing but another resource or another model will change that."""

    reason: FailureReason = "EngineFailed"
