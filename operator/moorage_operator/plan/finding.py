"""What is to be said about something: one word for programs, a sentence for people."""

from dataclasses import dataclass

from moorage_api.conditions import Reason


@dataclass(frozen=True)
class Finding:
    """A reason for programs, and a message for people."""

    reason: Reason
    message: str
