"""Why a group of ranks does not come together, or ends."""

from moorage_runtime.engine.errors import StartError
from moorage_runtime.engine.messages import FailureReason


class GroupError(StartError):
    """The ranks of a group are not all there, or no longer: in the words of one of them, or as it is seen."""

    def __init__(self, message: str, reason: FailureReason = "EngineFailed") -> None:
        super().__init__(message)
        self.reason = reason


class LostError(GroupError):
    """A rank has ended without a word: it was killed, or its machine is gone."""

    def __init__(self, rank: int) -> None:
        super().__init__(gone(rank))


def gone(rank: int) -> str:
    """The same words as the kernels have for it (`group.cpp`)."""
    return f"rank {rank} is gone"
