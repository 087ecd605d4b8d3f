"""Why a model could not be fetched; the class is the `reason` that the operator shows.

FetchError
├── InvalidSourceError   InvalidSource    the source is misspelt, or holds what is never fetched
├── ModelNotFoundError   ModelNotFound    there is nothing at that place
├── UnauthorizedError    Unauthorized     the place wants other credentials
├── DigestMismatchError  DigestMismatch   the bytes are not those that were asked for
└── FetchFailedError     FetchFailed      network, disk: trying again may help
"""

from typing import ClassVar


class FetchError(Exception):
    """A fetch that failed; its text is a sentence for the person who wrote the resource."""

    reason: ClassVar[str]


class InvalidSourceError(FetchError):
    """The source is misspelt, or holds what is never fetched: code, pickles, links that lead out."""

    reason = "InvalidSource"


class ModelNotFoundError(FetchError):
    """There is no such model at that place."""

    reason = "ModelNotFound"


class UnauthorizedError(FetchError):
    """The place wants credentials, or other ones."""

    reason = "Unauthorized"


class DigestMismatchError(FetchError):
    """The bytes are not those that were asked for."""

    reason = "DigestMismatch"


class FetchFailedError(FetchError):
    """Network or disk: trying again may help."""

    reason = "FetchFailed"
