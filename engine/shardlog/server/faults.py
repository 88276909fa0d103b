"""What the API answers where it cannot do what it was asked: names, texts and statuses. Pure.

The one place where the engine's errors become the API's. Texts are those of the service's model (`botocore`,
`dynamodbstreams/2012-08-10`) where it has them.
"""

from __future__ import annotations

from typing import Final

from shardlog.errors import (
    IteratorExpired,
    ShardlogError,
    StreamNotFound,
    TrimmedData,
)

BAD_REQUEST: Final = 400
TOO_LARGE: Final = 413
INTERNAL: Final = 500

_SERVICE: Final = "com.amazonaws.dynamodb.v20120810#"
_FRAMEWORK: Final = "com.amazon.coral.service#"
_VALIDATION: Final = "com.amazon.coral.validate#"


class Fault(Exception):
    """An answer that is an error: the name with its namespace, as JSON 1.0 writes it, and the HTTP status."""

    def __init__(self, kind: str, text: str, status: int = BAD_REQUEST) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text
        self.status = status

    @property
    def name(self) -> str:
        """The name without its namespace."""
        return self.kind.rpartition("#")[2]


def validation(text: str) -> Fault:
    """A parameter breaks a rule."""
    return Fault(f"{_VALIDATION}ValidationException", text)


def serialization(text: str) -> Fault:
    """The body is not JSON, or a value is of another type than the model says."""
    return Fault(f"{_FRAMEWORK}SerializationException", text)


def unknown_operation(text: str = "") -> Fault:
    """There is no such operation."""
    return Fault(f"{_FRAMEWORK}UnknownOperationException", text)


def stream_not_found(arn: str) -> Fault:
    """A well-formed ARN of nothing."""
    return Fault(f"{_SERVICE}ResourceNotFoundException", f"Requested resource not found: Stream: {arn} not found")


def shard_not_found(arn: str, shard_id: str) -> Fault:
    """The stream has no shard of that id."""
    return Fault(
        f"{_SERVICE}ResourceNotFoundException",
        f"Requested resource not found: Shard: {shard_id} in Stream: {arn} not found",
    )


def trimmed() -> Fault:
    """The position lies before the trim horizon."""
    return Fault(f"{_SERVICE}TrimmedDataAccessException", "The data you are trying to access has been trimmed.")


def expired_iterator() -> Fault:
    """The iterator is older than 15 minutes."""
    return Fault(f"{_SERVICE}ExpiredIteratorException", "The provided iterator exceeds the maximum age allowed.")


def internal() -> Fault:
    """Our own mistake, or the disk's. What it was is in the log, not in the answer."""
    return Fault(
        f"{_SERVICE}InternalServerError",
        "The server encountered an internal error trying to fulfill the request.",
        INTERNAL,
    )


def too_large(limit_bytes: int) -> Fault:
    """The body is larger than the server takes."""
    return Fault(
        f"{_FRAMEWORK}RequestEntityTooLargeException", f"The request is larger than {limit_bytes} bytes", TOO_LARGE
    )


def missing_token() -> Fault:
    """The request is not signed, and has to be."""
    return Fault(f"{_FRAMEWORK}MissingAuthenticationTokenException", "Missing Authentication Token")


def incomplete_signature(text: str) -> Fault:
    """The request is signed in part, or in another way."""
    return Fault(f"{_FRAMEWORK}IncompleteSignatureException", text)


def unknown_access_key() -> Fault:
    """Nobody has that access key."""
    return Fault(f"{_FRAMEWORK}UnrecognizedClientException", "The security token included in the request is invalid.")


def wrong_signature(text: str) -> Fault:
    """The signature is not what the secret key makes of the request."""
    return Fault(f"{_FRAMEWORK}InvalidSignatureException", text)


def invalid_sequence(text: str) -> Fault:
    """Not a sequence number, or none of the shard."""
    return validation(f"Invalid SequenceNumber: {text}")


def invalid_iterator() -> Fault:
    """A shard iterator that nobody gave, or not for this stream."""
    return validation("Invalid ShardIterator: it was not given by GetShardIterator or GetRecords")


def access_denied(text: str) -> Fault:
    """Whoever asks may not."""
    return Fault(f"{_FRAMEWORK}AccessDeniedException", text)


def fault_of(error: ShardlogError, arn: str) -> Fault:
    """What an error of the engine is in the API; the stream is that of the request.

    The engine's own words have numbers and names that no client has seen, so none of them are in it.
    """
    if isinstance(error, IteratorExpired):
        return expired_iterator()
    if isinstance(error, TrimmedData):
        return trimmed()
    if isinstance(error, StreamNotFound):
        return stream_not_found(arn)
    return internal()
