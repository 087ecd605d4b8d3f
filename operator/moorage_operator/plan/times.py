"""Times in Kubernetes' text form."""

from datetime import UTC, datetime


def as_text(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds, so that texts sort as times do."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def from_text(text: str) -> datetime:
    """Any RFC 3339 time, such as a `creationTimestamp`."""
    return datetime.fromisoformat(text)
